package devices

import (
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// probe records the last access and answers reads with its id.
type probe struct {
	id  byte
	off uint64
	got []byte
}

func (d *probe) Read(off uint64, p []byte) {
	d.off = off
	for i := range p {
		p[i] = d.id
	}
}

func (d *probe) Write(off uint64, p []byte) { d.off, d.got = off, append([]byte(nil), p...) }

func TestInsert(t *testing.T) {
	tests := []struct {
		name       string
		base, size uint64
		want       error
	}{
		{"below", 0x0, 0x100, nil},
		{"touches below", 0xf0, 0x10, nil},
		{"touches above", 0x108, 8, nil},
		{"same", 0x100, 8, ErrOverlap},
		{"first byte", 0xf9, 8, ErrOverlap},
		{"last byte", 0x107, 8, ErrOverlap},
		{"inside", 0x102, 1, ErrOverlap},
		{"around", 0x80, 0x100, ErrOverlap},
		{"empty", 0x200, 0, ErrBadRange},
		{"to the end", math.MaxUint64 - 7, 8, nil},
		{"wraps", math.MaxUint64 - 7, 9, ErrBadRange},
		{"everything", 1, math.MaxUint64, ErrOverlap},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := NewBus("test")
			if err := b.Insert(0x100, 8, &probe{}); err != nil {
				t.Fatal(err)
			}
			if err := b.Insert(tt.base, tt.size, &probe{}); !errors.Is(err, tt.want) {
				t.Errorf("Insert(%#x, %#x) = %v, want %v", tt.base, tt.size, err, tt.want)
			}
		})
	}
}

func TestAccess(t *testing.T) {
	b := NewBus("test")
	low, high := &probe{id: 1}, &probe{id: 2}
	for base, d := range map[uint64]*probe{0x100: low, math.MaxUint64 - 7: high} {
		if err := b.Insert(base, 8, d); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		addr uint64
		n    int
		dev  *probe
		off  uint64
	}{
		{"first", 0x100, 1, low, 0},
		{"all", 0x100, 8, low, 0},
		{"last", 0x107, 1, low, 7},
		{"straddles the end", 0x106, 4, nil, 0},
		{"straddles the start", 0xff, 2, nil, 0},
		{"between", 0x108, 1, nil, 0},
		{"nothing", 0x100, 0, nil, 0},
		{"top", math.MaxUint64, 1, high, 7},
		{"wraps", math.MaxUint64, 2, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := make([]byte, tt.n)
			if got := b.Read(tt.addr, p); got != (tt.dev != nil) {
				t.Errorf("Read = %v", got)
			}
			want := byte(0xff)
			if tt.dev != nil {
				want = tt.dev.id
			}
			for _, v := range p {
				if v != want {
					t.Errorf("read %#x, want %#x", v, want)
				}
			}
			if got := b.Write(tt.addr, p); got != (tt.dev != nil) {
				t.Errorf("Write = %v", got)
			}
			if tt.dev != nil && (tt.dev.off != tt.off || len(tt.dev.got) != tt.n) {
				t.Errorf("device saw offset %d, %d bytes", tt.dev.off, len(tt.dev.got))
			}
		})
	}
	if m := b.Metrics(); m.UnclaimedReads != 5 || m.UnclaimedWrites != 5 {
		t.Errorf("metrics %+v, want 5 and 5", m)
	}
}

func TestRemove(t *testing.T) {
	b := NewBus("test")
	if err := b.Insert(0x100, 8, &probe{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(0x101); !errors.Is(err, ErrNoDevice) {
		t.Errorf("Remove of a middle = %v", err)
	}
	if err := b.Remove(0x100); err != nil {
		t.Error(err)
	}
	if err := b.Remove(0x100); !errors.Is(err, ErrNoDevice) {
		t.Errorf("second Remove = %v", err)
	}
	if err := b.Insert(0x100, 8, &probe{}); err != nil {
		t.Errorf("Insert after Remove: %v", err)
	}
}

// gate holds accesses until it is opened.
type gate struct {
	entered chan struct{}
	open    chan struct{}
	left    atomic.Bool
}

func (g *gate) Read(uint64, []byte) {
	close(g.entered)
	<-g.open
	g.left.Store(true)
}

func (g *gate) Write(uint64, []byte) {}

func TestRemoveWaits(t *testing.T) {
	b := NewBus("test")
	g := &gate{entered: make(chan struct{}), open: make(chan struct{})}
	if err := b.Insert(0, 8, g); err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() {
		b.Read(0, make([]byte, 1))
		done <- true
	}()
	<-g.entered
	removed := make(chan bool)
	go func() {
		err := b.Remove(0)
		removed <- err == nil && g.left.Load()
	}()
	// As soon as the claim is off the bus, accesses find nobody, though one is inside.
	for b.Write(0, []byte{0}) {
		runtime.Gosched()
	}
	close(g.open)
	if !<-removed {
		t.Error("Remove returned while an access was inside")
	}
	<-done
}

// TestConcurrent moves a device while others access it; each access must be answered
// by the device while it is alive, or by nobody.
func TestConcurrent(t *testing.T) {
	b := NewBus("test")
	const rounds = 2000
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			p := make([]byte, 4)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if b.Read(0x100, p) != (p[0] == 1) {
					t.Error("answer does not match the claim")
					return
				}
			}
		})
	}
	for range rounds {
		d := &alive{}
		d.ok.Store(true)
		if err := b.Insert(0x100, 4, d); err != nil {
			t.Fatal(err)
		}
		if err := b.Remove(0x100); err != nil {
			t.Fatal(err)
		}
		d.ok.Store(false)
		if d.late.Load() {
			t.Fatal("access after Remove")
		}
	}
	close(stop)
	wg.Wait()
}

type alive struct{ ok, late atomic.Bool }

func (d *alive) Read(_ uint64, p []byte) {
	p[0] = 1
	runtime.Gosched()
	if !d.ok.Load() {
		d.late.Store(true)
	}
}

func (d *alive) Write(uint64, []byte) {}

// FuzzBus compares the bus with a list that is searched from front to back.
func FuzzBus(f *testing.F) {
	f.Add([]byte{0, 16, 8, 0, 20, 8, 2, 16, 1, 1, 16, 0, 2, 16, 1})
	f.Add([]byte{0, 255, 1, 0, 254, 1, 3, 253, 4, 1, 254, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		type span struct{ base, size uint64 }
		var model []span
		b := NewBus("fuzz")
		for ; len(ops) >= 3; ops = ops[3:] {
			// Addresses near the end of the space, so that sums wrap.
			base, size := uint64(ops[1])-128, uint64(ops[2])
			at := func(lo, n uint64) int {
				for i, s := range model {
					if lo >= s.base && lo-s.base < s.size && n <= s.size-(lo-s.base) && n > 0 {
						return i
					}
				}
				return -1
			}
			switch ops[0] % 4 {
			case 0:
				ok := size > 0 && base+(size-1) >= base
				for _, s := range model {
					if ok && base <= s.base+(s.size-1) && s.base <= base+(size-1) {
						ok = false
					}
				}
				if err := b.Insert(base, size, &probe{}); (err == nil) != ok {
					t.Fatalf("Insert(%#x, %#x) = %v", base, size, err)
				}
				if ok {
					model = append(model, span{base, size})
				}
			case 1:
				i := at(base, 1)
				ok := i >= 0 && model[i].base == base
				if err := b.Remove(base); (err == nil) != ok {
					t.Fatalf("Remove(%#x) = %v", base, err)
				}
				if ok {
					model = append(model[:i], model[i+1:]...)
				}
			case 2:
				if got := b.Read(base, make([]byte, size)); got != (at(base, size) >= 0) {
					t.Fatalf("Read(%#x, %d) = %v", base, size, got)
				}
			case 3:
				if got := b.Write(base, make([]byte, size)); got != (at(base, size) >= 0) {
					t.Fatalf("Write(%#x, %d) = %v", base, size, got)
				}
			}
		}
	})
}

// The cost of finding a device among twenty and counting the access.
func BenchmarkRead(b *testing.B) {
	bus := NewBus("bench")
	for i := range uint64(20) {
		if err := bus.Insert(i*16, 8, &probe{}); err != nil {
			b.Fatal(err)
		}
	}
	p := make([]byte, 1)
	for b.Loop() {
		bus.Read(7*16, p)
	}
}
