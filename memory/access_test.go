package memory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

const testHigh = GPA(0x100000) // base of the region apart

func TestAccessErrors(t *testing.T) {
	g := newTestGuest(t, testRegions)
	const endLow, endHigh = 8 * PageSize, testHigh + 67*PageSize
	buf := make([]byte, 3*PageSize)
	for i := range buf {
		buf[i] = 0xaa
	}
	for _, c := range []struct {
		name string
		gpa  GPA
		n    int
		want error
	}{
		{"inside", 8, 8, nil},
		{"crosses regions that touch", 5*PageSize - 4, 8, nil},
		{"three pages over regions", 4 * PageSize, 3 * PageSize, nil},
		{"to the end", endLow - 8, 8, nil},
		{"over the end", endLow - 4, 8, ErrOutOfRange},
		{"at the end", endLow, 1, ErrOutOfRange},
		{"in the hole", 0x80000, 1, ErrOutOfRange},
		{"before a region", testHigh - 1, 2, ErrOutOfRange},
		{"over the last end", endHigh - 1, 2, ErrOutOfRange},
		{"wraps", 1<<64 - 1, 2, ErrOutOfRange},
		{"nothing, nowhere", 1<<64 - 1, 0, nil},
	} {
		if err := g.WriteAt(c.gpa, buf[:c.n]); !errors.Is(err, c.want) {
			t.Errorf("write %s: %v, want %v", c.name, err, c.want)
		}
		p := make([]byte, c.n)
		if err := g.ReadAt(c.gpa, p); !errors.Is(err, c.want) {
			t.Errorf("read %s: %v, want %v", c.name, err, c.want)
		}
		if c.want == nil && !bytes.Equal(p, buf[:c.n]) {
			t.Errorf("read %s: not what was written", c.name)
		}
		if c.want != nil && bytes.Contains(p, []byte{0xaa}) {
			t.Errorf("read %s: failed and changed the buffer", c.name)
		}
	}
	if v, err := g.LoadUint8(testHigh); v != 0 || err != nil {
		t.Errorf("a refused write left a trace: %#x, %v", v, err)
	}
}

func TestWordErrors(t *testing.T) {
	g := newTestGuest(t, testRegions)
	for _, c := range []struct {
		gpa  GPA
		want error
	}{{1, ErrMisaligned}, {0x80000, ErrOutOfRange}, {8 * PageSize, ErrOutOfRange}, {1<<64 - 8, ErrOutOfRange}} {
		for name, err := range map[string]error{
			"load 16": second(g.LoadUint16(c.gpa)), "store 16": g.StoreUint16(c.gpa, 1),
			"load 32": second(g.LoadUint32(c.gpa)), "store 32": g.StoreUint32(c.gpa, 1),
			"load 64": second(g.LoadUint64(c.gpa)), "store 64": g.StoreUint64(c.gpa, 1),
		} {
			if !errors.Is(err, c.want) {
				t.Errorf("%s at %#x: %v, want %v", name, c.gpa, err, c.want)
			}
		}
	}
	for name, err := range map[string]error{
		"load 8": second(g.LoadUint8(0x80000)), "store 8": g.StoreUint8(0x80000, 1),
		"view": g.ViewPage(0x80000, func([]byte) {}),
	} {
		if !errors.Is(err, ErrOutOfRange) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := g.ViewPage(8, func([]byte) {}); !errors.Is(err, ErrMisaligned) {
		t.Errorf("view: %v", err)
	}
}

func TestViewPage(t *testing.T) {
	g := newTestGuest(t, testRegions)
	if err := g.WriteAt(5*PageSize, []byte{7}); err != nil {
		t.Fatal(err)
	}
	called := false
	err := g.ViewPage(5*PageSize, func(p []byte) {
		called = true
		if len(p) != PageSize || cap(p) != PageSize || p[0] != 7 {
			t.Errorf("page of %d, cap %d, first byte %d", len(p), cap(p), p[0])
		}
	})
	if err != nil || !called {
		t.Error(err, called)
	}
}

// TestModel compares every accessor with a plain slice that stands for all
// addresses, and the tracker and the set of data pages with what was stored.
func TestModel(t *testing.T) {
	const space = int(testHigh) + 68*PageSize
	var isRAM [space]bool
	for _, r := range testRegions {
		for i := range r.SizeBytes {
			isRAM[uint64(r.Base)+i] = true
		}
	}
	inRAM := func(gpa, n int) bool {
		for i := gpa; i < gpa+n; i++ {
			if i >= space || !isRAM[i] {
				return false
			}
		}
		return true
	}
	rapid.Check(t, func(t *rapid.T) {
		g, err := New(testRegions, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		model := make([]byte, space)
		tr := g.Track(newFakeGuest(g))
		if err := tr.Start(); err != nil {
			t.Fatal(err)
		}
		dirty, data, known := g.NewPageSet(), g.NewPageSet(), g.NewPageSet()

		address := rapid.OneOf(rapid.IntRange(0, 9*PageSize), rapid.IntRange(int(testHigh)-PageSize, space-1))
		size := rapid.OneOf(rapid.IntRange(0, 16), rapid.IntRange(0, 3*PageSize))
		stored := func(gpa, n int) {
			for i := gpa; i < gpa+n; i++ {
				dirty.Add(GPA(i))
				data.Add(GPA(i))
			}
		}
		outcome := func(err error, valid bool) bool {
			if valid != (err == nil) || (err != nil && !errors.Is(err, ErrOutOfRange)) {
				t.Fatalf("valid %v: %v", valid, err)
			}
			return valid
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				gpa, n := address.Draw(t, "gpa"), size.Draw(t, "size")
				p := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, n)
				if outcome(g.WriteAt(GPA(gpa), p), inRAM(gpa, n)) {
					copy(model[gpa:], p)
					stored(gpa, n)
				}
			},
			"read": func(t *rapid.T) {
				gpa, n := address.Draw(t, "gpa"), size.Draw(t, "size")
				p := make([]byte, n)
				if outcome(g.ReadAt(GPA(gpa), p), inRAM(gpa, n)) {
					if !bytes.Equal(p, model[gpa:gpa+n]) {
						t.Fatalf("read %d at %#x differs", n, gpa)
					}
					for i := gpa; i < gpa+n; i++ {
						data.Add(GPA(i)) // a load makes resident
					}
				}
			},
			"store": func(t *rapid.T) {
				n := 1 << rapid.IntRange(0, 3).Draw(t, "log width")
				gpa := address.Draw(t, "gpa") &^ (n - 1)
				var p [8]byte
				v := rapid.Uint64().Draw(t, "value")
				binary.LittleEndian.PutUint64(p[:], v)
				if outcome(storeWidth(g, GPA(gpa), n, v), inRAM(gpa, n)) {
					copy(model[gpa:], p[:n])
					stored(gpa, n)
				}
			},
			"load": func(t *rapid.T) {
				n := 1 << rapid.IntRange(0, 3).Draw(t, "log width")
				gpa := address.Draw(t, "gpa") &^ (n - 1)
				v, err := loadWidth(g, GPA(gpa), n)
				if outcome(err, inRAM(gpa, n)) {
					var p [8]byte
					copy(p[:], model[gpa:gpa+n])
					if want := binary.LittleEndian.Uint64(p[:]); v != want {
						t.Fatalf("load %d at %#x: %#x, want %#x", n, gpa, v, want)
					}
					data.Add(GPA(gpa))
				}
			},
			"view": func(t *rapid.T) {
				gpa := address.Draw(t, "gpa") &^ (PageSize - 1)
				err := g.ViewPage(GPA(gpa), func(p []byte) {
					if !bytes.Equal(p, model[gpa:gpa+PageSize]) {
						t.Fatalf("view at %#x differs", gpa)
					}
					data.Add(GPA(gpa))
				})
				outcome(err, inRAM(gpa, PageSize))
			},
			"reset": func(t *rapid.T) {
				if err := g.Reset(); err != nil {
					t.Fatal(err)
				}
				clear(model)
				data.Clear()
				known.Clear()
				for _, r := range g.Regions() {
					for p := uint64(0); p < r.SizeBytes; p += PageSize {
						dirty.Add(r.Base + GPA(p))
					}
				}
			},
			"collect": func(t *rapid.T) {
				got := g.NewPageSet()
				if err := tr.Collect(got); err != nil {
					t.Fatal(err)
				}
				samePages(t, "dirty", got, dirty)
				dirty.Clear()
			},
			"data": func(t *rapid.T) {
				got, err := g.DataPages()
				if err != nil {
					t.Fatal(err)
				}
				samePages(t, "data", got, data)
				if err := g.AddDataPages(known); err != nil {
					t.Fatal(err)
				}
				samePages(t, "data, brought up to date", known, data)
			},
		})
	})
}

func samePages(t *rapid.T, what string, got, want *PageSet) {
	g, w := pagesOf(got), pagesOf(want)
	if len(g) != len(w) {
		t.Fatalf("%s pages: %#x, want %#x", what, g, w)
	}
	for i := range g {
		if g[i] != w[i] {
			t.Fatalf("%s pages: %#x, want %#x", what, g, w)
		}
	}
}

func storeWidth(g *Guest, gpa GPA, n int, v uint64) error {
	switch n {
	case 1:
		return g.StoreUint8(gpa, uint8(v))
	case 2:
		return g.StoreUint16(gpa, uint16(v))
	case 4:
		return g.StoreUint32(gpa, uint32(v))
	}
	return g.StoreUint64(gpa, v)
}

func loadWidth(g *Guest, gpa GPA, n int) (uint64, error) {
	switch n {
	case 1:
		v, err := g.LoadUint8(gpa)
		return uint64(v), err
	case 2:
		v, err := g.LoadUint16(gpa)
		return uint64(v), err
	case 4:
		v, err := g.LoadUint32(gpa)
		return uint64(v), err
	}
	return g.LoadUint64(gpa)
}

func BenchmarkStoreUint16(b *testing.B) {
	g := newTestGuest(b, testRegions)
	for b.Loop() {
		_ = g.StoreUint16(testHigh, 1)
	}
}

func BenchmarkLoadUint16(b *testing.B) {
	g := newTestGuest(b, testRegions)
	for b.Loop() {
		_, _ = g.LoadUint16(testHigh)
	}
}

func BenchmarkWriteAt64(b *testing.B) {
	g := newTestGuest(b, testRegions)
	p := make([]byte, 64)
	for b.Loop() {
		_ = g.WriteAt(testHigh, p)
	}
}

func TestEditPage(t *testing.T) {
	g := newTestGuest(t, testRegions)
	tr, _ := started(t, g)
	cause := errors.New("half way")
	for i, want := range []error{nil, cause} {
		gpa := GPA(i+1) * PageSize
		err := g.EditPage(gpa, func(page []byte) error {
			page[7] = 9
			return want
		})
		if !errors.Is(err, want) {
			t.Errorf("EditPage = %v, want %v", err, want)
		}
		if b, err := g.LoadUint8(gpa + 7); b != 9 || err != nil {
			t.Errorf("%d, %v at %#x", b, err, uint64(gpa))
		}
	}
	got := g.NewPageSet()
	if err := tr.Collect(got); err != nil {
		t.Fatal(err)
	}
	wantPages(t, "edited", got, PageSize, 2*PageSize)
	if err := g.EditPage(1, nil); !errors.Is(err, ErrMisaligned) {
		t.Errorf("misaligned: %v", err)
	}
	if err := g.EditPage(testHigh-PageSize, nil); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("out of range: %v", err)
	}
}
