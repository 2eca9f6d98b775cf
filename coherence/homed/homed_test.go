package homed

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fineline-vmm/fineline/coherence"
	"github.com/fineline-vmm/fineline/memory"
)

const (
	testPages = 24
	agents    = 4 // three vCPUs and a device
	vcpus     = agents - 1
	wordBytes = 8
)

var caches = coherence.Config{Caches: vcpus, Sets: 4, Ways: 2}

// rig is memory that is missing at a destination, and what it is at the source.
type rig struct {
	t      *testing.T
	guest  *memory.Guest
	demand *memory.Demand
	lines  *Memory // nil: by the page
	source []byte
}

func newRig(t *testing.T, byLine bool, seed uint64) *rig {
	t.Helper()
	if err := memory.CheckDemand(); err != nil {
		t.Skip(err)
	}
	guest, err := memory.New([]memory.Region{{SizeBytes: testPages * memory.PageSize}}, memory.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, guest.Close()) })
	rng := rand.New(rand.NewPCG(seed, 1))
	r := &rig{t: t, guest: guest, source: make([]byte, testPages*memory.PageSize)}
	for i := range r.source {
		r.source[i] = byte(rng.Uint32())
	}
	absent := guest.NewPageSet()
	for page := range memory.GPA(testPages) {
		gpa := page * memory.PageSize
		switch rng.IntN(4) {
		case 0: // stale
			must(t, guest.WriteAt(gpa, bytes.Repeat([]byte{0xcc}, memory.PageSize)))
		case 1:
			must(t, guest.WriteAt(gpa, r.page(gpa)))
			continue // present
		}
		absent.Add(gpa)
	}
	r.demand, err = guest.Demand(absent)
	must(t, err)
	t.Cleanup(func() { must(t, r.demand.Close()) })
	if byLine {
		r.lines, err = New(guest, r.demand, caches)
		must(t, err)
	}
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) page(gpa memory.GPA) []byte { return r.source[gpa:][:memory.PageSize] }

// access does a vCPU's access; agent vcpus is a device, which waits for pages.
func (r *rig) access(agent int, gpa memory.GPA, data []byte, write bool) error {
	if agent < vcpus && r.lines != nil {
		if absent, err := r.lines.Access(agent, gpa, data, write); absent || err != nil {
			return err
		}
	}
	switch {
	case !write:
		return r.guest.ReadAt(gpa, data)
	case agent < vcpus:
		return r.guest.WriteGuestStore(gpa, data)
	}
	return r.guest.WriteAt(gpa, data)
}

// play has an agent load and store words of its own, and checks each load: what is stored is what its seed says, whatever the others
// do and however memory comes. It returns what the agent's words are at last.
func (r *rig) play(agent int, seed uint64, steps int) (map[memory.GPA]uint64, error) {
	rng := rand.New(rand.NewPCG(seed, uint64(agent)))
	words := map[memory.GPA]uint64{}
	for range steps {
		word := rng.Uint64N(testPages*memory.PageSize/wordBytes/agents)*agents + uint64(agent)
		gpa, write := memory.GPA(word*wordBytes), rng.IntN(2) == 0
		var data [wordBytes]byte
		value := rng.Uint64()
		if write {
			binary.LittleEndian.PutUint64(data[:], value)
			words[gpa] = value
		}
		if err := r.access(agent, gpa, data[:], write); err != nil {
			return nil, err
		}
		want, stored := words[gpa]
		if !stored {
			want = binary.LittleEndian.Uint64(r.source[gpa:])
		}
		if got := binary.LittleEndian.Uint64(data[:]); got != want {
			return nil, fmt.Errorf("agent %d loads %#x at %#x, want %#x", agent, got, uint64(gpa), want)
		}
	}
	return words, nil
}

// filler is what fills: the Memory, or the Demand.
type filler interface {
	Next(ctx context.Context) (memory.GPA, error)
	Fill(gpa memory.GPA, fn func(page []byte) error) (bool, error)
}

func (r *rig) filler() filler {
	if r.lines != nil {
		return r.lines
	}
	return r.demand
}

func (r *rig) fill(gpa memory.GPA) {
	if _, err := r.filler().Fill(gpa, func(page []byte) error {
		copy(page, r.page(gpa))
		return nil
	}); err != nil {
		r.t.Error(err)
	}
}

// answerLines brings missed lines, each perhaps twice, and perhaps its page after or before it.
func (r *rig) answerLines(ctx context.Context, rng *rand.Rand) {
	for {
		line, err := r.lines.NextLine(ctx)
		if err != nil {
			return
		}
		at, page := line*coherence.LineSize, memory.GPA(line/coherence.PageLines*memory.PageSize)
		if rng.IntN(8) == 0 {
			r.fill(page)
		}
		for range 1 + rng.IntN(2) {
			if _, err := r.lines.FillLine(line, r.source[at:][:coherence.LineSize]); err != nil {
				r.t.Error(err)
			}
		}
		if rng.IntN(8) == 0 {
			r.lines.RepeatLines()
		}
		if rng.IntN(32) == 0 {
			r.fill(page)
		}
	}
}

func (r *rig) answerPages(ctx context.Context) {
	for {
		gpa, err := r.filler().Next(ctx)
		if err != nil {
			return
		}
		r.fill(gpa)
	}
}

// push brings all pages while the agents run, the later the more they have done.
func (r *rig) push(rng *rand.Rand) {
	for _, page := range rng.Perm(testPages) {
		for range rng.IntN(200) {
			runtime.Gosched()
		}
		r.fill(memory.GPA(page * memory.PageSize))
	}
}

// run plays all agents and returns all of memory.
func (r *rig) run(seed uint64) []byte {
	ctx, cancel := context.WithCancel(context.Background())
	var answering, running sync.WaitGroup
	if r.lines != nil {
		answering.Go(func() { r.answerLines(ctx, rand.New(rand.NewPCG(seed, 2))) })
	}
	answering.Go(func() { r.answerPages(ctx) })
	want := bytes.Clone(r.source)
	var mu sync.Mutex
	for agent := range agents {
		running.Go(func() {
			runtime.LockOSThread() // as a vCPU's goroutine
			words, err := r.play(agent, seed, 400)
			if err != nil {
				r.t.Errorf("seed %d: %v", seed, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for gpa, value := range words {
				binary.LittleEndian.PutUint64(want[gpa:], value)
			}
		})
	}
	running.Go(func() { r.push(rand.New(rand.NewPCG(seed, 3))) })
	running.Wait()
	cancel()
	answering.Wait()
	got := make([]byte, len(want))
	must(r.t, r.guest.ReadAt(0, got))
	if !bytes.Equal(got, want) {
		r.t.Errorf("seed %d: memory is not what was stored to it", seed)
	}
	return got
}

// TestAsByThePage: the same programs leave the same memory whether it comes by the line or by the page, in whatever order
// lines, pages and repetitions come.
func TestAsByThePage(t *testing.T) {
	first := rand.Uint64()
	t.Logf("seeds from %d", first)
	var total coherence.Stats
	for seed := first; seed != first+40; seed++ {
		byLine, byPage := newRig(t, true, seed), newRig(t, false, seed)
		if !bytes.Equal(byLine.run(seed), byPage.run(seed)) {
			t.Errorf("seed %d: memory differs", seed)
		}
		s := byLine.lines.core.Stats()
		total.Fetches += s.Fetches
		total.LateLines += s.LateLines
		total.Hits += s.Hits
	}
	t.Logf("%d fetches, %d late lines, %d hits", total.Fetches, total.LateLines, total.Hits)
	if total.Fetches == 0 || total.LateLines == 0 || total.Hits == 0 {
		t.Error("a case does not come up")
	}
}

// blocked starts an access that must wait, and returns when it does, which is when its line is asked for.
func (r *rig) blocked(cpu int, gpa memory.GPA, data []byte, write bool) (done chan error) {
	r.t.Helper()
	done = make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		_, err := r.lines.Access(cpu, gpa, data, write)
		done <- err
	}()
	line, err := r.lines.NextLine(context.Background())
	must(r.t, err)
	if want := uint64(gpa) / coherence.LineSize; line != want {
		r.t.Fatalf("line %d is asked for, want %d", line, want)
	}
	return done
}

// absentPage returns a page of which nothing is here.
func (r *rig) absentPage() (gpa memory.GPA) {
	r.demand.Absent().Range(func(at memory.GPA) bool {
		gpa = at
		return false
	})
	return gpa
}

// TestLastLine: a page is complete when its lines are, one by one.
func TestLastLine(t *testing.T) {
	r := newRig(t, true, 7)
	gpa := r.absentPage()
	store := []byte{1, 2, 3}
	done := r.blocked(0, gpa+70, store, true)
	for i := range coherence.PageLines {
		at := uint64(gpa) + uint64(i)*coherence.LineSize
		taken, err := r.lines.FillLine(at/coherence.LineSize, r.source[at:][:coherence.LineSize])
		must(t, err)
		if !taken {
			t.Errorf("line %d was not taken", i)
		}
		if i == 1 {
			must(t, <-done)
		}
		if absent := r.demand.Has(gpa); absent != (i < coherence.PageLines-1) {
			t.Errorf("after line %d: absent is %t", i, absent)
		}
	}
	<-r.lines.Completed()
	want := bytes.Clone(r.page(gpa))
	copy(want[70:], store)
	got := make([]byte, memory.PageSize)
	must(t, r.guest.ReadAt(gpa, got))
	if !bytes.Equal(got, want) {
		t.Error("the page is not what it should be")
	}
	if taken, err := r.lines.FillLine(uint64(gpa)/coherence.LineSize, make([]byte, coherence.LineSize)); taken || err != nil {
		t.Error("a line came twice", err)
	}
	r.push(rand.New(rand.NewPCG(1, 1)))
}

// TestFillFails: of a page whose content turns out to be wrong nothing is stored, and it can come again.
func TestFillFails(t *testing.T) {
	r := newRig(t, true, 8)
	gpa, bad := r.absentPage(), errors.New("bad")
	if filled, err := r.lines.Fill(gpa, func(page []byte) error {
		clear(page[:100])
		page[200] = 1
		return bad
	}); filled || !errors.Is(err, bad) {
		t.Error(filled, err)
	}
	r.push(rand.New(rand.NewPCG(1, 1)))
	got := make([]byte, len(r.source))
	must(t, r.guest.ReadAt(0, got))
	if !bytes.Equal(got, r.source) {
		t.Error("memory is not the source's")
	}
}

// TestHold: a vCPU that waits for a line is found waiting by a pause, and stays so though its line, or all of its page, comes.
func TestHold(t *testing.T) {
	for _, whole := range []bool{false, true} {
		r := newRig(t, true, 9)
		gpa := r.absentPage()
		var threads atomic.Int32
		r.guest.WatchWaits(func() { threads.Add(1) })
		var data [8]byte
		done := r.blocked(0, gpa, data[:], false)
		r.guest.Hold()
		if whole {
			r.fill(gpa)
		} else if _, err := r.lines.FillLine(uint64(gpa)/coherence.LineSize, r.page(gpa)[:coherence.LineSize]); err != nil {
			t.Fatal(err)
		}
		for !r.guest.Held() || threads.Load() == 0 { // it says that it waits on
			runtime.Gosched()
		}
		select {
		case err := <-done:
			t.Fatalf("whole page %t: it went on, %v", whole, err)
		default:
		}
		must(t, r.guest.Release())
		must(t, <-done)
		if !bytes.Equal(data[:], r.page(gpa)[:8]) && !whole {
			t.Errorf("loaded %x", data)
		}
		r.push(rand.New(rand.NewPCG(1, 1)))
	}
}

// TestLost: when memory is lost who waits for a line is told.
func TestLost(t *testing.T) {
	r := newRig(t, true, 10)
	var data [8]byte
	done := r.blocked(0, r.absentPage(), data[:], false)
	must(t, r.demand.Close())
	if err := <-done; !errors.Is(err, memory.ErrMissing) {
		t.Error(err)
	}
}
