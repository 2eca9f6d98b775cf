package migration

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration/journal"
)

// stuckSink is a journal's disk that hangs from a moment on, until it is freed.
type stuckSink struct {
	*os.File
	hangs atomic.Bool
	freed chan struct{}
}

func (s *stuckSink) Sync() error {
	if s.hangs.Load() {
		<-s.freed
	}
	return nil
}

// TestDiskHangsBeforeTheCommit: with READY in hand and no time allowed that would end the wait, the guest goes on at the source.
func TestDiskHangsBeforeTheCommit(t *testing.T) {
	p := newPair(t)
	path := filepath.Join(t.TempDir(), "journal")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	disk := &stuckSink{File: file, freed: make(chan struct{})}
	free := sync.OnceFunc(func() { close(disk.freed) })
	p.src.journal.Close()
	p.src.journal = journal.New(path, disk, nil)
	p.opts.Journal = p.src.journal
	p.opts.TimeoutStrategy, p.opts.PeerTimeout = TimeoutIgnore, time.Second
	p.src.onPause = func() error {
		disk.hangs.Store(true)
		return nil
	}
	p.src.onResume = func() error {
		free()
		return nil
	}
	guard := time.AfterFunc(hangGuard, free) // or the test would not end
	out := p.migrate()
	if !guard.Stop() {
		t.Error("the guest waited for the disk")
	}
	if !errors.Is(out.sendErr, ErrTimeout) || !isDiscarded(out.gotErr) {
		t.Errorf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
	p.verifyLaw(source)
}
