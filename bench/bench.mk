# make bench: ours and the peers in one run; bench/README.md has figures. Included by the Makefile.

BENCH_PACKAGES := python3 python3-venv dbus qemu-utils nginx-light curl coreutils git

.PHONY: bench bench-machine install-bench

install-bench:
	@tools/install-packages $(BENCH_PACKAGES)
	@tools/install-python fast,cli

bench: install-bench ## imports against qemu-img and others, thousands of volumes; BENCH='scale' for one
	@$(PYTHON) -m bench $(BENCH)

bench-machine: install-machine ## what is measured on real ZFS, in the test machine: operations against zfs
	@$(PYTHON) -m bench.machine $(BENCH)
