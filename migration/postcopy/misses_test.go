package postcopy

import (
	"slices"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// TestMisses: a miss is open until its page is in place; after a restart its time begins anew.
func TestMisses(t *testing.T) {
	m := newMisses()
	now := time.Now()
	m.open(7, now.Add(-time.Hour))
	m.open(3, now.Add(-time.Minute))
	if page, since, ok := m.oldest(); !ok || page != 7 || !since.Equal(now.Add(-time.Hour)) {
		t.Errorf("oldest is %d since %v, %v", page, since, ok)
	}
	if got := m.restart(now); !slices.Equal(got, []uint64{3, 7}) {
		t.Errorf("waiting: %v", got)
	}
	if _, since, _ := m.oldest(); !since.Equal(now) {
		t.Errorf("since %v after the restart at %v", since, now)
	}
	idle := m.idle
	if !m.settle(7) || m.settle(7) || m.settle(8) {
		t.Error("each miss ends once")
	}
	select {
	case <-idle:
		t.Error("idle while page 3 is waited for")
	default:
	}
	if !m.settle(3) {
		t.Error("page 3 was not waited for")
	}
	<-idle
	if _, _, ok := m.oldest(); ok || m.summary().Count != 2 || m.waitIdle(time.Hour) != 0 {
		t.Errorf("%+v", m.summary())
	}
}

// TestMissOfPresentPage: a page that came between the fault and its report is not asked for.
func TestMissOfPresentPage(t *testing.T) {
	guest := newGuest(t, 60)
	all := allPages(guest)
	m := newFakeMemory(guest, setOf(guest, all[:10]...))
	m.faults <- all[30]
	stop := make(chan struct{})
	defer close(stop)
	go m.touch(all[4], stop)
	l := newLinks(t, 0)
	p := newTestPager(t, m, "auto")
	done := make(chan error, 1)
	go func() { done <- p.run(l) }()
	f, err := l.source[0].Reader.Next(wire.Of(wire.TypeRequest))
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.DecodeRequest(nil, f.Payload)
	if err != nil || got[0] != 4 || slices.Contains(got, pageNumber(all[30])) {
		t.Errorf("asked for %v, %v", got, err)
	}
	l.close()
	<-done
	if s := p.Stats(); s.FaultsLocal != 1 || s.Faults != 1 {
		t.Errorf("%+v", s)
	}
}

// TestLatencyBuckets: they hold every value once, in its place, and fit into the message however far apart the values are.
func TestLatencyBuckets(t *testing.T) {
	m := newMisses()
	want := uint64(0)
	for at := time.Nanosecond; at < 2*maxLatency; at += at/8 + 1 {
		m.open(1, time.Now().Add(-at))
		m.settle(1)
		want++
	}
	all := m.summary().Buckets
	if len(all) > wire.MaxFaultBuckets {
		t.Errorf("%d buckets", len(all))
	}
	var got uint64
	for i, b := range all {
		got += b.Count
		if i > 0 && b.UpTo <= all[i-1].UpTo || b.Count == 0 {
			t.Errorf("bucket %d is %+v", i, b)
		}
	}
	if last := all[len(all)-1].UpTo; got != want || last < maxLatency || last > 2*maxLatency {
		t.Errorf("%d values of %d, the longest up to %v", got, want, last)
	}
}
