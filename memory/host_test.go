package memory

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadLayout(t *testing.T) {
	many := make([]Region, maxRegions+1)
	for i := range many {
		many[i] = Region{Base: GPA(i) * PageSize, SizeBytes: PageSize}
	}
	for name, regions := range map[string][]Region{
		"none":          nil,
		"zero size":     {{Base: 0, SizeBytes: 0}},
		"odd size":      {{Base: 0, SizeBytes: PageSize + 1}},
		"odd base":      {{Base: 8, SizeBytes: PageSize}},
		"overlap":       {{Base: 0, SizeBytes: 2 * PageSize}, {Base: PageSize, SizeBytes: PageSize}},
		"same":          {{Base: 0, SizeBytes: PageSize}, {Base: 0, SizeBytes: PageSize}},
		"wraps":         {{Base: 1<<64 - PageSize, SizeBytes: 2 * PageSize}},
		"beyond 52 bit": {{Base: 1<<52 - PageSize, SizeBytes: 2 * PageSize}},
		"largest size":  {{Base: 0, SizeBytes: 1<<64 - PageSize}},
		"too many":      many,
	} {
		if _, err := New(regions, Options{}); !errors.Is(err, ErrBadLayout) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBeyondHost(t *testing.T) {
	h, err := probeHost(Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = New([]Region{{Base: 0, SizeBytes: h.memoryBytes/PageSize*PageSize + PageSize}}, Options{})
	if !errors.Is(err, ErrBeyondHost) {
		t.Fatalf("one page more than the host: %v", err)
	}
	_, err = New([]Region{{Base: 0, SizeBytes: 1 << 52}}, Options{})
	if !errors.Is(err, ErrBeyondHost) {
		t.Fatalf("all addresses: %v", err)
	}
}

func TestChooseBacking(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name      string
		sizeBytes uint64
		host      host
		want      backing
		advice    string // in the error, when not empty
	}{
		{"pool", 8 * mib, host{freeHugePages: 4, transparentHuge: true}, backingPool, ""},
		{"pool too small", 8 * mib, host{freeHugePages: 3, transparentHuge: true}, backingTransparent, ""},
		{"odd size", 9 * mib, host{freeHugePages: 9, transparentHuge: true}, backingTransparent, ""},
		{"nothing", 8 * mib, host{poolHugePages: 5, freeHugePages: 3}, 0, "vm.nr_hugepages=6,"},
		{"odd size, only pool", 9 * mib, host{freeHugePages: 9}, 0, "whole number"},
	} {
		c.host.memoryBytes = 1 << 30
		l, err := newLayout([]Region{{Base: 0, SizeBytes: c.sizeBytes}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.host.choose(l, Options{HugePages: true})
		if c.advice == "" {
			if err != nil || b != c.want {
				t.Errorf("%s: %v, %v", c.name, b, err)
			}
		} else if !errors.Is(err, ErrNoHugePages) || !strings.Contains(err.Error(), c.advice) {
			t.Errorf("%s: %v", c.name, err)
		}
		if b, err := c.host.choose(l, Options{}); b != backingPages || err != nil {
			t.Errorf("%s, not asked for: %v, %v", c.name, b, err)
		}
	}
}

func TestReadHugePages(t *testing.T) {
	const all, size = "transparent_hugepage/shmem_enabled", "transparent_hugepage/hugepages-2048kB/shmem_enabled"
	pool := func(name string) string { return "hugepages/hugepages-2048kB/" + name }
	for _, c := range []struct {
		name  string
		files map[string]string
		want  host
	}{
		{"no files", nil, host{}},
		{"pool", map[string]string{pool("nr_hugepages"): "9\n", pool("free_hugepages"): "7\n", pool("resv_hugepages"): "3\n"},
			host{poolHugePages: 9, freeHugePages: 4}},
		{"more promised than free", map[string]string{pool("free_hugepages"): "1", pool("resv_hugepages"): "2"}, host{}},
		{"garbage", map[string]string{pool("free_hugepages"): "many", all: "always"}, host{}},
		{"old kernel", map[string]string{all: "always within_size [advise] never deny force\n"}, host{transparentHuge: true}},
		{"never", map[string]string{all: "always within_size advise [never] deny force\n"}, host{}},
		{"size inherits", map[string]string{all: "[advise] never", size: "always [inherit] never"}, host{transparentHuge: true}},
		{"size alone", map[string]string{all: "advise [never]", size: "[advise] never"}, host{transparentHuge: true}},
		{"size refuses", map[string]string{all: "[advise] never", size: "advise [never]"}, host{}},
		{"deny wins", map[string]string{all: "[deny]", size: "[always]"}, host{}},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := readHugePages(dir); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestHugePages runs on hosts that have some; on others New must say what to do.
func TestHugePages(t *testing.T) {
	g, err := New([]Region{{Base: 0, SizeBytes: 2 * hugePageSize}}, Options{HugePages: true})
	if errors.Is(err, ErrNoHugePages) {
		t.Skip("this host gives no huge pages: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for range 2 { // before and after a reset
		if v, err := g.LoadUint64(hugePageSize); v != 0 || err != nil {
			t.Fatal(v, err)
		}
		if err := g.StoreUint64(hugePageSize, 1); err != nil {
			t.Fatal(err)
		}
		data, err := g.DataPages()
		if err != nil {
			t.Fatal(err)
		}
		if !data.Has(hugePageSize) {
			t.Error("the page with data is missing")
		}
		if err := g.Reset(); err != nil {
			t.Fatal(err)
		}
	}
}
