# SPDX-License-Identifier: GPL-2.0-or-later
#
# "make help" lists the targets.

BUILD ?= default
SERIES := /usr/bin/python3 scripts/series
MESON := PATH="$(CURDIR)/build/tools/usr/bin:$$PATH" \
	PYTHONPATH="$(CURDIR)/build/tools/usr/lib/python3/dist-packages" meson
CHECK := build/check

export QEMU_SRC

help:
	@echo 'make demo        boot a Linux guest behind our VT-d unit and show what works'
	@echo '                 (DISK=virtio|nvme|ahci|FILE, KERNEL=6.1|6.12|FILE,'
	@echo '                 MODE=lazy|strict|pt, EIM=on; demo/run --help tells more)'
	@echo 'make shell       a console in that guest'
	@echo 'make check       all tests; SUITE=vtd|series one suite, TEST=name one test'
	@echo 'make check-long  also: every commit by itself, documentation, all x86 qtests'
	@echo 'make build       compile; BUILD=asan with sanitizers, BUILD=stock QEMU alone'
	@echo 'make series      OUT=DIR [SIGNOFF="Name <mail>"]: mails for "git am"'
	@echo 'make quilt       OUT=DIR: patches for a distribution package'
	@echo 'make deps        install the Debian packages that are missing'
	@echo 'make clean       remove what was compiled; make distclean: all of build/'
	@echo
	@echo 'QEMU_SRC=DIR uses a QEMU 10.0.x tree or checkout of yours as the base.'

deps:
	@sh scripts/deps

build: deps
	@$(SERIES) build --kind $(BUILD)

demo shell: deps
	@$(SERIES) build
	@QEMU=$(CURDIR)/build/obj/default/qemu-system-x86_64 demo/run $@

check-build: deps
	@$(SERIES) build
	@$(SERIES) build --kind asan
	@$(SERIES) build --kind stock
	@demo/run assets
	@KERNEL=6.12 demo/run assets

# meson of the build tools, set up once; the tests' results are counted in the
# end, from what really ran
$(CHECK)/build.ninja:
	@mkdir -p build/log
	@$(MESON) setup $(CHECK) . >build/log/check-setup.log 2>&1 || \
		{ tail -n 15 build/log/check-setup.log; rm -rf $(CHECK); exit 1; }

run-tests = rm -f $(CHECK)/meson-logs/testlog.junit.xml; \
	$(MESON) test -C $(CHECK) --no-rebuild --print-errorlogs --num-processes 2 \
	$(1) $(TEST) </dev/null; $(SERIES) summary $(CHECK)

check: check-build $(CHECK)/build.ninja
	@$(call run-tests,$(if $(SUITE),--suite $(SUITE),--no-suite long))

check-long: check-build $(CHECK)/build.ninja
	@sh scripts/deps scripts/packages-long
	@$(call run-tests,$(if $(SUITE),--suite $(SUITE)))

series quilt:
	@[ -n "$(OUT)" ] || { echo 'make $@: say where to: OUT=DIR' >&2; exit 1; }
	@$(MAKE) --no-print-directory deps
	@$(SERIES) export $(if $(filter quilt,$@),--quilt) \
		$(if $(SIGNOFF),--signoff '$(SIGNOFF)') '$(OUT)'

clean:
	rm -rf build/ours/obj build/asan build/stock/obj build/check build/each build/docs

distclean:
	rm -rf build

.PHONY: help deps build demo shell check-build check check-long series quilt clean distclean
.NOTPARALLEL:
