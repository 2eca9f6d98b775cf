package memory

import (
	"bytes"
	"errors"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
)

func TestShape(t *testing.T) {
	g := newTestGuest(t, testRegions)
	want := []Region{testRegions[1], testRegions[2], testRegions[0]}
	if got := g.Regions(); !slices.Equal(got, want) {
		t.Errorf("regions %+v, want %+v", got, want)
	}
	if g.Pages() != testPages || g.SizeBytes() != testPages*PageSize {
		t.Errorf("%d pages, %d bytes", g.Pages(), g.SizeBytes())
	}
	for i, m := range g.GuestMappings() {
		if m.Region != want[i] || m.HostAddr == 0 || m.HostAddr%PageSize != 0 {
			t.Errorf("mapping %d: %+v", i, m)
		}
	}
}

// The guest mapping and the accessors are the same memory.
func TestGuestMappingIsShared(t *testing.T) {
	g := newTestGuest(t, testRegions)
	f := newFakeGuest(g)
	for _, gpa := range []GPA{0, 5 * PageSize, 0x100000 + 66*PageSize} {
		f.store(gpa, 0x1122334455667788)
		if v, err := g.LoadUint64(gpa); v != 0x1122334455667788 || err != nil {
			t.Errorf("%#x: %#x, %v", gpa, v, err)
		}
	}
}

func TestDataPagesAndReset(t *testing.T) {
	g := newTestGuest(t, testRegions)
	data := func() *PageSet {
		t.Helper()
		s, err := g.DataPages()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	wantPages(t, "new", data())
	if err := g.WriteAt(5*PageSize-1, []byte{1, 2}); err != nil { // the end of one region, the start of the next
		t.Fatal(err)
	}
	if err := g.StoreUint8(0x100000+66*PageSize+4095, 3); err != nil {
		t.Fatal(err)
	}
	wantPages(t, "written", data(), 4*PageSize, 5*PageSize, 0x100000+66*PageSize)

	tr, _ := started(t, g)
	if err := g.Reset(); err != nil {
		t.Fatal(err)
	}
	wantPages(t, "reset", data())
	dirty := g.NewPageSet()
	if err := tr.Collect(dirty); err != nil {
		t.Fatal(err)
	}
	if dirty.Len() != testPages {
		t.Errorf("reset marks %d pages, want %d", dirty.Len(), testPages)
	}
	p := []byte{9, 9}
	if err := g.ReadAt(5*PageSize-1, p); err != nil || !bytes.Equal(p, []byte{0, 0}) {
		t.Errorf("after reset: %v, %v", p, err)
	}
}

// A guest as large as the host costs only what is touched.
func TestSparse(t *testing.T) {
	h, err := probeHost(Options{})
	if err != nil {
		t.Fatal(err)
	}
	const base = 4 << 30
	size := h.memoryBytes / PageSize * PageSize
	g := newTestGuest(t, []Region{{Base: base, SizeBytes: size}})
	last := base + GPA(size) - PageSize
	if err := g.StoreUint64(last+PageSize-8, 1); err != nil {
		t.Fatal(err)
	}
	data, err := g.DataPages()
	if err != nil {
		t.Fatal(err)
	}
	wantPages(t, "sparse", data, last)
}

func TestClosed(t *testing.T) {
	g, err := New(testRegions, Options{})
	if err != nil {
		t.Fatal(err)
	}
	tr, _ := started(t, g)
	set := g.NewPageSet()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	for name, err := range map[string]error{
		"ReadAt":    g.ReadAt(0, make([]byte, 1)),
		"WriteAt":   g.WriteAt(0, []byte{1}),
		"ViewPage":  g.ViewPage(0, func([]byte) { t.Error("called") }),
		"Load":      second(g.LoadUint32(0)),
		"Store":     g.StoreUint16(0, 1),
		"Reset":     g.Reset(),
		"DataPages": second(g.DataPages()),
		"Collect":   tr.Collect(set),
		"Start":     g.Track(newFakeGuest(g)).Start(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := tr.Stop(); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if m := g.GuestMappings(); len(m) != 0 {
		t.Errorf("mappings %v", m)
	}
}

func second[T any](_ T, err error) error { return err }

// Accesses that race with Close end well or with ErrClosed; a fault would end
// the test binary.
func TestCloseRace(t *testing.T) {
	for range 20 {
		g, err := New(testRegions, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var running, done sync.WaitGroup
		for range 4 {
			running.Add(1)
			done.Go(func() {
				buf := make([]byte, 8*PageSize)
				first := true
				for i := uint64(0); ; i++ {
					err := g.WriteAt(0, buf)
					if err == nil {
						err = g.ReadAt(0, buf)
					}
					if err == nil {
						err = g.StoreUint64(0, i)
					}
					if err == nil {
						err = g.ViewPage(0, func(p []byte) { _ = bytes.Count(p, []byte{1}) })
					}
					if first {
						running.Done()
						first = false
					}
					if errors.Is(err, ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		running.Wait()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		runtime.GC() // tempts the cleanup to unmap under the accesses
		done.Wait()
	}
}

// Design law 7: nothing that a Guest returns refers to guest memory.
func TestNoReferenceEscapes(t *testing.T) {
	typ := reflect.TypeFor[*Guest]()
	for i := range typ.NumMethod() {
		m := typ.Method(i)
		for j := range m.Type.NumOut() {
			out := m.Type.Out(j)
			switch out.Kind() {
			case reflect.UnsafePointer:
				t.Errorf("%s returns an unsafe pointer", m.Name)
			case reflect.Slice, reflect.Array, reflect.Pointer:
				switch out.Elem().Kind() {
				case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
					t.Errorf("%s returns %v", m.Name, out)
				}
			}
		}
	}
}
