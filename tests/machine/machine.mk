# The test machine, included by the Makefile: real ZFS, systemd, system bus and polkit in qemu.
# It is built once into ~/.cache/mvirt-zfs-dbus (4 to 7 minutes, 1.4 GB), then boots in 20 to 40 s.

# What it needs of Debian or Ubuntu; uidmap is for those who are not root.
MACHINE_PACKAGES := python3 python3-venv git mmdebstrap uidmap debian-archive-keyring \
	qemu-system-x86 qemu-utils e2fsprogs openssh-client

MACHINE := $(PYTHON) -m tests.machine

.PHONY: install-machine test-machine machine-shell machine-stop machine-clean

install-machine:
	@tools/install-packages $(MACHINE_PACKAGES)
	@tools/install-python fast,cli,test

test-machine: install-machine deb ## the contract suite and the machine tests on real ZFS, in qemu
	@$(MACHINE) --name test test $(TESTS)

machine-shell: install-machine ## a root shell in that machine, with a pool and the service running
	@$(MACHINE) --name shell shell

machine-stop: ## shut down the machine that machine-shell left running
	@$(MACHINE) --name shell stop

machine-clean: ## stop all machines and drop the one that was built; the next run builds it anew
	@for each in build/machine/*/; do \
		test ! -d "$$each" || $(MACHINE) --name "$$(basename "$$each")" stop || exit; done
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/mvirt-zfs-dbus" build/machine
