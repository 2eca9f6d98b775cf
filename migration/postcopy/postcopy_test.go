package postcopy

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// guests runs n guest CPUs that touch pages in random order and write to what they touched, until stop; it
// returns what was written, when they have ended.
func (m *fakeMemory) guests(n int, seed uint64, stop <-chan struct{}) (wait func() map[memory.GPA]uint64) {
	var tasks sync.WaitGroup
	var mu sync.Mutex
	written := map[memory.GPA]uint64{}
	pages := allPages(m.guest)
	for cpu := range n {
		tasks.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(cpu)))
			for _, i := range rnd.Perm(len(pages)) {
				gpa := pages[i]
				if !m.touch(gpa, stop) {
					return
				}
				if rnd.IntN(2) == 0 {
					continue
				}
				v := rnd.Uint64()
				mu.Lock()
				written[gpa] = v
				err := m.guest.StoreUint64(gpa, v)
				mu.Unlock()
				if err != nil {
					panic(err)
				}
			}
		})
	}
	return func() map[memory.GPA]uint64 {
		tasks.Wait()
		return written
	}
}

func TestDelivers(t *testing.T) {
	for _, tc := range []struct {
		name       string
		cpus       int
		background int
		predictor  string
	}{
		{"background alone", 0, 1, ""},
		{"several streams", 0, 4, ""},
		{"one CPU", 1, 1, ""},
		{"four CPUs, predicted", 4, 2, "sequential"},
		{"no background", 2, 0, "sequential"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const seed = 4
			source := newSource(t, 2000)
			all := setOf(source, allPages(source)...)
			m := newFakeMemory(newGuest(t, 2000), all)
			s := NewServer(source, all, ServerOptions{})
			p := newTestPager(t, m, tc.predictor)
			wait := m.guests(tc.cpus, seed, nil)
			serveErr, err := runBoth(s, p, newLinks(t, tc.background))
			if err != nil || !errors.Is(serveErr, context.Canceled) {
				t.Fatalf("Run: %v, Serve: %v", err, serveErr)
			}
			if err := m.check(wait()); err != nil {
				t.Error(err)
			}
			t.Logf("%+v", p.Stats())
		})
	}
}
