package postcopy

import (
	"slices"
	"testing"
	"time"
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
