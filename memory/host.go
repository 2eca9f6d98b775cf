package memory

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// backing is where a region's pages come from.
type backing int

const (
	backingPages       backing = iota // shared memory in pages of 4 KiB
	backingPool                       // the host's reserved huge pages (hugetlb)
	backingTransparent                // shared memory, in huge pages as the kernel finds them
)

// hugePageSize is the size of both kinds of huge page, in bytes. Pages of 1 GiB are
// left out: a dirty log splits them anyway.
const hugePageSize = 2 << 20

// host is what a host can give.
type host struct {
	memoryBytes     uint64
	poolHugePages   uint64 // in the pool, used or not
	freeHugePages   uint64 // in the pool and not promised to others
	transparentHuge bool   // for shared memory whose owner asks
}

// probeHost asks the running system for what opts need.
func probeHost(opts Options) (host, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return host{}, fmt.Errorf("ask for the host's memory size: %w", err)
	}
	var h host
	if opts.HugePages {
		h = readHugePages("/sys/kernel/mm")
	}
	h.memoryBytes = info.Totalram * uint64(info.Unit)
	return h, nil
}

// readHugePages reads the kernel's huge page settings (its documents
// admin-guide/mm/hugetlbpage and transhuge). A file that is missing means that
// this kernel has no such pages.
func readHugePages(dir string) host {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(text))
	}
	count := func(name string) uint64 {
		n, err := strconv.ParseUint(read("hugepages/hugepages-2048kB/"+name), 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	h := host{poolHugePages: count("nr_hugepages")}
	if free, reserved := count("free_hugepages"), count("resv_hugepages"); free > reserved {
		h.freeHugePages = free - reserved
	}
	all := selected(read("transparent_hugepage/shmem_enabled"))
	mode := selected(read("transparent_hugepage/hugepages-2048kB/shmem_enabled"))
	if mode == "" || mode == "inherit" || all == "deny" || all == "force" {
		mode = all
	}
	switch mode {
	case "always", "within_size", "advise", "force":
		h.transparentHuge = true
	}
	return h
}

// selected returns the word in brackets of a setting such as "always [never]".
func selected(setting string) string {
	_, rest, _ := strings.Cut(setting, "[")
	word, _, _ := strings.Cut(rest, "]")
	return word
}

// choose decides the backing of a layout, or says why this host has none.
func (h host) choose(l *layout, opts Options) (backing, error) {
	if l.sizeBytes > h.memoryBytes {
		const mib = 1 << 20 // rounded apart, so that the two figures differ
		return 0, fmt.Errorf("%w: %d MiB asked for, the host has %d MiB; ask for less",
			ErrBeyondHost, (l.sizeBytes+mib-1)/mib, h.memoryBytes/mib)
	}
	if !opts.HugePages {
		return backingPages, nil
	}
	whole := true
	for i := range l.spans {
		s := &l.spans[i]
		whole = whole && uint64(s.Base)%hugePageSize == 0 && s.SizeBytes%hugePageSize == 0
	}
	need := l.sizeBytes / hugePageSize
	switch {
	case whole && need <= h.freeHugePages:
		return backingPool, nil
	case h.transparentHuge:
		return backingTransparent, nil
	case !whole:
		return 0, fmt.Errorf("%w: guest memory of %d bytes is not a whole number of huge pages of 2 MiB; "+
			"round its size up, or run as root: echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled",
			ErrNoHugePages, l.sizeBytes)
	}
	return 0, fmt.Errorf("%w: %d of 2 MiB needed, %d free; run as root: sysctl vm.nr_hugepages=%d, "+
		"or: echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled",
		ErrNoHugePages, need, h.freeHugePages, h.poolHugePages+need-h.freeHugePages)
}
