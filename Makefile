# SPDX-License-Identifier: GPL-2.0-or-later
#
# "make help" lists the targets.

BUILD ?= default
SERIES := /usr/bin/python3 scripts/series

export QEMU_SRC SIGNOFF

help:
	@echo 'make demo        boot a Linux guest behind our VT-d unit and show what works;'
	@echo '                 then one whose disk is backed up while QEMU is killed'
	@echo '                 (DISK=virtio|nvme|ahci|FILE, KERNEL=6.1|6.12|FILE,'
	@echo '                 MODE=lazy|strict|pt, EIM=on; demo/run --help tells more)'
	@echo 'make shell       a console in that guest'
	@echo 'make check       all tests; SUITE=vtd|bitmap|series one suite,'
	@echo '                 SUITE=vtd-long|series-long what takes long,'
	@echo '                 TEST=name one test'
	@echo 'make check-long  all of these'
	@echo 'make bench       how fast: our unit, that of QEMU and an ideal one in turns'
	@echo '                 (SUITE=vtd, CASE="512 page", GUEST=off, IDEAL=off),'
	@echo '                 or with SUITE=bitmap the dirty bitmap filter'
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
	@[ $@ = shell ] || \
		QEMU=$(CURDIR)/build/obj/default/qemu-system-x86_64 demo/bitmap

# TEST names one test or several; the last line counts what really ran
check: deps
	@case '$(SUITE)' in *-long) sh scripts/deps scripts/packages-long;; esac
	@$(SERIES) test $(if $(SUITE),--suite '$(SUITE)') $(TEST) </dev/null

check-long: deps
	@sh scripts/deps scripts/packages-long
	@$(SERIES) test --long $(if $(SUITE),--suite '$(SUITE)') $(TEST) </dev/null

# CASE names one case or several; bench/run --help tells more
bench: deps
	@case '$(or $(SUITE),vtd)' in vtd|bitmap) ;; \
		*) echo 'make bench: there are SUITE=vtd and SUITE=bitmap' >&2; \
		exit 1;; esac
	@$(SERIES) build
	@if [ '$(SUITE)' = bitmap ]; then \
		exec /usr/bin/python3 bench/bitmap $(CASE:%=--part %); \
	fi; \
	$(SERIES) build --kind stock && \
	exec /usr/bin/python3 bench/run vtd $(CASE:%=--case %) \
		$(if $(GUEST),--guest $(GUEST)) $(if $(IDEAL),--ideal $(IDEAL)) \
		$(if $(VALGRIND),--valgrind)

series quilt:
	@[ -n "$(OUT)" ] || { echo 'make $@: say where to: OUT=DIR' >&2; exit 1; }
	@$(MAKE) --no-print-directory deps
	@$(SERIES) export $(if $(filter quilt,$@),--quilt) \
		$(if $(SIGNOFF),--signoff "$$SIGNOFF") '$(OUT)'

clean:
	rm -rf build/ours/obj build/asan build/stock/obj build/check build/each build/docs

distclean:
	rm -rf build

.PHONY: help deps build demo shell check check-long bench series quilt clean distclean
.NOTPARALLEL:
