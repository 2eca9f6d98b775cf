package postcopy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/fineline-vmm/fineline/coherence"
	"github.com/fineline-vmm/fineline/coherence/homed"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

var _ LineMemory = (*homed.Memory)(nil)

// lineGuest is a guest with real missing memory that comes by the line.
type lineGuest struct {
	*demandGuest
	lines *homed.Memory
}

const lineCPUs = 3

func newLineGuest(t testing.TB, pages uint64) *lineGuest {
	t.Helper()
	g := &lineGuest{demandGuest: newDemandGuest(t, pages)}
	var err error
	if g.lines, err = homed.New(g.guest, g.demand, coherence.Config{Caches: lineCPUs, Sets: 4, Ways: 2}); err != nil {
		t.Fatal(err)
	}
	return g
}

// access is one of a vCPU; its goroutine keeps its thread.
func (g *lineGuest) access(cpu int, gpa memory.GPA, data []byte, write bool) error {
	absent, err := g.lines.Access(cpu, gpa, data, write)
	switch {
	case absent || err != nil:
		return err
	case write:
		return g.guest.WriteGuestStore(gpa, data)
	}
	return g.guest.ReadAt(gpa, data)
}

// play has a CPU load and store words of its own all over memory, and returns what it stored.
func (g *lineGuest) play(cpu int, seed, pages uint64, steps int) (map[memory.GPA]uint64, error) {
	rng := rand.New(rand.NewPCG(seed, uint64(cpu)))
	stored := map[memory.GPA]uint64{}
	for range steps {
		gpa := memory.GPA(rng.Uint64N(pages)*memory.PageSize + rng.Uint64N(128)*32 + uint64(cpu)*8)
		want, ok := stored[gpa]
		if !ok {
			want = binary.LittleEndian.Uint64(sourcePage(gpa &^ (memory.PageSize - 1))[gpa%memory.PageSize:])
		}
		var data [8]byte
		if err := g.access(cpu, gpa, data[:], false); err != nil {
			return nil, err
		}
		if got := binary.LittleEndian.Uint64(data[:]); got != want {
			return nil, errors.New("a load saw something else than the last store")
		}
		stored[gpa] = rng.Uint64()
		binary.LittleEndian.PutUint64(data[:], stored[gpa])
		if err := g.access(cpu, gpa, data[:], true); err != nil {
			return nil, err
		}
	}
	return stored, nil
}

// TestLines is the whole of it: CPUs that wait for lines, a device that waits for pages, connections that are lost, and at last
// the memory that the source had with what was stored.
func TestLines(t *testing.T) {
	const pages = 1500
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := newLineGuest(t, pages)
	source, err := memory.New([]memory.Region{{SizeBytes: pages * memory.PageSize}}, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	want := make([]byte, pages*memory.PageSize)
	for _, gpa := range allPages(source) {
		copy(want[gpa:], sourcePage(gpa))
		if err := source.WriteAt(gpa, want[gpa:][:memory.PageSize]); err != nil {
			t.Fatal(err)
		}
	}
	var cpus sync.WaitGroup
	var mu sync.Mutex
	for cpu := range lineCPUs {
		cpus.Go(func() {
			runtime.LockOSThread()
			stored, err := g.play(cpu, seed, pages, 2000)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for gpa, v := range stored {
				binary.LittleEndian.PutUint64(want[gpa:], v)
			}
		})
	}
	cpus.Go(func() {
		rng := rand.New(rand.NewPCG(seed, lineCPUs))
		for range 50 {
			gpa := memory.GPA(rng.Uint64N(pages) * memory.PageSize)
			var word [8]byte
			if err := g.guest.ReadAt(gpa+24, word[:]); err != nil || !bytes.Equal(word[:], sourcePage(gpa)[24:32]) {
				t.Errorf("page %#x: a device reads %x, %v", uint64(gpa), word, err)
			}
		}
	})
	s := NewServer(source, setOf(source, allPages(source)...), ServerOptions{BatchBytes: 4 * wire.MinBatchBytes})
	p := newPagerOf(t, g.lines, "auto", g.guest)
	runCut(t, s, p, 10, 60, 200)
	cpus.Wait()
	got := make([]byte, len(want))
	if err := g.guest.ReadAt(0, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("memory is not the source's with what was stored, %v", err)
	}
	st := p.Stats()
	t.Logf("%+v", st)
	if st.Lines.Faults == 0 || st.Lines.PagesRest == 0 || st.Lines.Latency.Count == 0 || st.Lines.RestLatency.Count == 0 ||
		st.Lines.Bytes != (st.Lines.Filled+st.Lines.Late)*wire.LineFrameBytes {
		t.Error("the statistics are not of such a run")
	}
}

// TestLineComesFirst: the answer to a missed line is that line, and its page behind it.
func TestLineComesFirst(t *testing.T) {
	source := newSource(t, 60)
	s := NewServer(source, setOf(source, allPages(source)...), ServerOptions{})
	l := newLinks(t, 0)
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l.source[0], nil) }()
	const page, index = 5, 9
	request := wire.AppendRequestLine(nil, page*pageLines+index)
	for range 2 { // the line comes as often as it is asked for, its page once
		if err := l.destination[0].Writer.Bytes(wire.TypeRequestLine, request); err != nil {
			t.Fatal(err)
		}
	}
	lines, pages := 0, 0
	for lines+pages < 3 {
		f, err := l.destination[0].Reader.Next(wire.Of(wire.TypeLine, wire.TypePages))
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == wire.TypePages {
			pages++
			if lines == 0 {
				t.Error("the page came before its line")
			}
			continue
		}
		lines++
		line, content, err := wire.DecodeLine(f.Payload)
		if err != nil || line != page*pageLines+index || !bytes.Equal(content, sourcePage(pageGPA(page))[index*lineBytes:][:lineBytes]) {
			t.Errorf("line %d: %x, %v", line, content, err)
		}
	}
	if lines != 2 || pages != 1 {
		t.Errorf("%d lines and %d pages came", lines, pages)
	}
	l.close()
	if err := <-done; !errors.Is(err, ErrConnectionLost) {
		t.Errorf("Serve: %v", err)
	}
}

// TestHostileLines: a line that nobody asked for, or for the second time, ends the run; so does any line where pages are waited for.
func TestHostileLines(t *testing.T) {
	content := bytes.Repeat([]byte{0xaa}, lineBytes)
	const asked = 4 * pageLines
	for name, lines := range map[string][]uint64{
		"another line": {asked + 1}, "twice": {asked, asked}, "of a page that is not missing": {9 * pageLines}, "beyond memory": {1 << 40},
	} {
		t.Run(name, func(t *testing.T) {
			g := newLineGuest(t, 10)
			l := newLinks(t, 1)
			var cpu sync.WaitGroup
			cpu.Go(func() {
				runtime.LockOSThread()
				var data [8]byte
				_, _ = g.lines.Access(0, asked*lineBytes, data[:], true)
			})
			go func() {
				if _, err := l.source[0].Reader.Next(wire.Of(wire.TypeRequestLine)); err != nil {
					return
				}
				for _, line := range lines {
					_ = l.source[0].Writer.Bytes(wire.TypeLine, wire.AppendLine(nil, line, content))
				}
			}()
			p := NewPager(g.lines, PagerOptions{})
			if err := p.run(l); !errors.Is(err, wire.ErrProtocol) {
				t.Errorf("Run: %v", err)
			}
			if err := g.demand.Close(); err != nil {
				t.Error(err)
			}
			cpu.Wait()
		})
	}
}
