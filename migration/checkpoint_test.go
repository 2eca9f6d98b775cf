package migration

import (
	"testing"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// TestLostCheckpointsTakeNoBudget: a page whose checkpoint is lost goes whole in the next one, and its twin is counted once.
func TestLostCheckpointsTakeNoBudget(t *testing.T) {
	m := newMachine(t, &world{}, source, 1024) // room for hashes in half of it
	s, err := newSaver(m, m.mem, hostClock{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	value := uint64(0)
	checkpoint := func() {
		t.Helper()
		value++
		if err := m.mem.StoreUint64(0, value); err != nil {
			t.Fatal(err)
		}
		if _, err := s.take(t.Context(), func(*wire.Batch) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	// connection is one that brings checkpoints until the page is hot, and loses the last one.
	connection := func() uint64 {
		t.Helper()
		for range twinAfter + 2 {
			checkpoint()
			s.acknowledged()
		}
		checkpoint()
		s.lost()
		return s.base.sizeBytes()
	}
	first := connection()
	if c, i := s.base.at(0); c.known[i] != isTwin {
		t.Fatalf("the page is known as %d, and no twin", c.known[i])
	}
	for n := range 3 {
		if now := connection(); now != first {
			t.Errorf("%d bytes after %d lost connections, %d after the first", now, n+2, first)
		}
	}
}
