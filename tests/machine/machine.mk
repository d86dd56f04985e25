# The test machine, included by the Makefile: real ZFS, systemd, system bus and polkit in qemu.
# It is built once into ~/.cache/mvirt-zfs-dbus (8 minutes, 1.7 GB) and then boots in 20 seconds.

# What it needs of the host, by the names Debian and Ubuntu have for it.
MACHINE_PACKAGES := python3 git mmdebstrap debian-archive-keyring qemu-system-x86 \
	e2fsprogs openssh-client tar

MACHINE := $(BIN)/python -m tests.machine

.PHONY: test-machine machine-shell machine-stop machine-clean

test-machine: $(TEST_INSTALLED) ## run the contract suite and the machine tests on real ZFS in a booted Debian
	@$(MACHINE) --name test test $(TESTS)

machine-shell: $(TEST_INSTALLED) ## a root shell in a Debian with a pool and the service running
	@$(MACHINE) --name shell shell

machine-stop: ## shut down the machine that machine-shell left running
	@$(MACHINE) --name shell stop

machine-clean: machine-stop ## drop the built test machine; the next run builds it anew
	@rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/mvirt-zfs-dbus" build/machine
