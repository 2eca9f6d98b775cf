package qemu

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Setting is one way in which QEMU migrates.
type Setting struct {
	Name     string // as --peer takes it, for example "qemu-xbzrle"
	Label    string // for people, without QEMU's name and version
	Postcopy bool   // the destination resumes first
	Shared   bool   // guest RAM is a memfd, as Fineline's, and no anonymous memory with huge pages
	// WarmPasses is how many passes over memory are made under the smallest downtime limit before that of the
	// options holds: XBZRLE knows a page only from the second pass on.
	WarmPasses int
	// WarmBytesPerS is how fast the first of them is: QEMU stops after one that ends before its first look at the
	// bandwidth, 100 ms after the start, whatever the downtime limit is.
	WarmBytesPerS uint64

	capabilities []string
	parameters   map[string]any
}

// The memory that XBZRLE keeps of what it sent.
const (
	defaultCacheBytes = 64 << 20 // QEMU's own default
	minCacheBytes     = 1 << 20
	warmPasses        = 4 // all pages; first sight; differences; and again, now with a measured bandwidth
)

// Settings are all that are measured. hotBytes is how much the guest writes again and again: one cache of XBZRLE
// holds it with room to spare, a small one cannot.
func Settings(hotBytes uint64) []Setting {
	large := max(defaultCacheBytes, powerOfTwo(2*hotBytes))
	small := max(minCacheBytes, powerOfTwo(hotBytes)/2)
	return []Setting{
		{Name: "qemu"},
		{Name: "qemu-multifd", Label: "multifd", capabilities: []string{"multifd"}},
		{
			Name: "qemu-multifd-zstd", Label: "multifd with zstd", capabilities: []string{"multifd"},
			parameters: map[string]any{"multifd-compression": "zstd"},
		},
		{Name: "qemu-multifd-shared", Label: "multifd, memory in a memfd", Shared: true, capabilities: []string{"multifd"}},
		xbzrle("qemu-xbzrle", large),
		xbzrle("qemu-xbzrle-small", small),
		warm(xbzrle("qemu-xbzrle-warm", large), hotBytes),
		{Name: "qemu-postcopy", Label: "postcopy", Postcopy: true, capabilities: []string{"postcopy-ram"}},
		{
			Name: "qemu-postcopy-preempt", Label: "postcopy with preempt", Postcopy: true,
			capabilities: []string{"postcopy-ram", "postcopy-preempt"},
		},
	}
}

// Memory is the guest's, as command-line arguments.
func (s *Setting) Memory(sizeMiB int) []string {
	size := fmt.Sprintf("%dM", sizeMiB)
	if !s.Shared {
		return []string{"-m", size}
	}
	return []string{"-m", size, "-object", "memory-backend-memfd,id=ram,share=on,size=" + size, "-machine", "memory-backend=ram"}
}

func xbzrle(name string, cacheBytes uint64) Setting {
	return Setting{
		Name: name, Label: fmt.Sprintf("xbzrle, cache of %d MiB", cacheBytes>>20),
		capabilities: []string{"xbzrle"}, parameters: map[string]any{"xbzrle-cache-size": cacheBytes},
	}
}

// warm holds a migration until its cache is warm.
func warm(s Setting, hotBytes uint64) Setting {
	const firstPassesPerS, leastBytesPerS = 4, 64 << 20
	s.Label += ", held to 1 ms until it is warm"
	s.WarmPasses, s.WarmBytesPerS = warmPasses, max(leastBytesPerS, firstPassesPerS*hotBytes)
	return s
}

// powerOfTwo is the smallest that is not below n, as XBZRLE wants its cache.
func powerOfTwo(n uint64) uint64 { return 1 << bits.Len64(n-1) }

// Names lists the settings as --peer takes them.
func Names() []string {
	var names []string
	for _, s := range Settings(minCacheBytes) {
		names = append(names, s.Name)
	}
	return names
}

// Choose finds a setting by its name.
func Choose(name string, hotBytes uint64) (Setting, error) {
	all := Settings(hotBytes)
	at := slices.IndexFunc(all, func(s Setting) bool { return s.Name == name })
	if at < 0 {
		return Setting{}, fmt.Errorf("QEMU has no setting %q: choose of %s", name, strings.Join(Names(), ", "))
	}
	return all[at], nil
}
