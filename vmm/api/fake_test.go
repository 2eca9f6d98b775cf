package api

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/devices/socket"
)

// fakeController is a machine without a machine. It fails the test when the Session breaks its
// promise: one change at a time, and only from a state that allows it.
type fakeController struct {
	t       testing.TB
	session *Session
	busy    atomic.Bool

	mu      sync.Mutex
	config  MachineConfig
	boot    *BootSource
	logger  LoggerConfig
	running bool
	started bool
	calls   []string

	fail         error                        // what every change answers
	hold         chan struct{}                // a change waits for it, if not nil
	entered      chan string                  // gets the name of each change that begins, if not nil
	onMigrate    func(MigrationRequest) error // nil: the migration goes on until the test ends it
	onCancel     func() error
	onTrack      func(TrackRequest) (LineWatch, error) // nil: there is no machine
	lastRecover  RecoverRequest
	underWay     uint64
	lastDecision Decision
	lastRequest  MigrationRequest
}

var errFake = errors.New("the fake fails as told")

func newFake(t testing.TB, incoming bool) (*fakeController, *Session) {
	f := &fakeController{t: t, config: MachineConfig{VCPUCount: 1, MemSizeMiB: 128}}
	f.session = NewSession(f, incoming)
	return f, f.session
}

func (f *fakeController) change(name string, apply func()) error {
	if !f.busy.CompareAndSwap(false, true) {
		f.t.Errorf("%s came during another change", name)
	}
	defer f.busy.Store(false)
	if f.entered != nil {
		f.entered <- name
	}
	if f.hold != nil {
		<-f.hold
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, name)
	if f.fail != nil {
		return f.fail
	}
	apply()
	return nil
}

func (f *fakeController) must(ok bool, what string) {
	if !ok {
		f.t.Errorf("the session let through: %s", what)
	}
}

func (f *fakeController) Metrics() any {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.started {
		return nil
	}
	return map[string]int{"faults": 7}
}

func (f *fakeController) Standby() *Standby { return nil }

func (f *fakeController) Track(r TrackRequest) (LineWatch, error) {
	if f.onTrack == nil {
		return nil, errors.New("no machine has been started")
	}
	return f.onTrack(r)
}

func (f *fakeController) MachineConfig() MachineConfig {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.config
}

func (f *fakeController) SetMachineConfig(c MachineConfig) error {
	return f.change("config", func() { f.must(!f.started, "configure after the start"); f.config = c })
}

func (f *fakeController) BootSource() (BootSource, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.boot == nil {
		return BootSource{}, false
	}
	return *f.boot, true
}

func (f *fakeController) SetBootSource(b BootSource) error {
	return f.change("boot", func() { f.must(!f.started, "boot source after the start"); f.boot = &b })
}

func (f *fakeController) SetLogger(l LoggerConfig) error {
	return f.change("logger", func() { f.logger = l })
}

func (f *fakeController) Start(context.Context) error {
	return f.change("start", func() { f.must(!f.started, "a second start"); f.started, f.running = true, true })
}

func (f *fakeController) Pause(context.Context) error {
	return f.change("pause", func() { f.must(f.running, "pause of what does not run"); f.running = false })
}

func (f *fakeController) Resume(context.Context) error {
	return f.change("resume", func() { f.must(f.started && !f.running, "resume of what is not paused"); f.running = true })
}

func (f *fakeController) Stop(context.Context) error {
	return f.change("stop", func() { f.running = false })
}

func (f *fakeController) StartMigration(_ context.Context, r MigrationRequest) error {
	var then error
	err := f.change("migrate", func() {
		f.must(f.started, "migration before the start")
		f.lastRequest = r
	})
	if err == nil && f.onMigrate != nil {
		then = f.onMigrate(r)
	}
	return errors.Join(err, then)
}

func (f *fakeController) Migration() any { return nil }

func (f *fakeController) MemoryUnderWay() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.underWay
}

func (f *fakeController) RecoverMigration(_ context.Context, r RecoverRequest) error {
	return f.change("recover", func() { f.lastRecover = r })
}

func (f *fakeController) CancelMigration(context.Context) error {
	if f.onCancel != nil {
		return f.onCancel()
	}
	return f.session.MigrationEnded(GuestKept, "cancelled")
}

func (f *fakeController) ResolveMigration(_ context.Context, d Decision) error {
	return f.change("resolve", func() { f.lastDecision = d })
}

func quietConfig() ServerConfig {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return ServerConfig{ID: "vm-1", Version: "1.2.3", Log: log}
}

// serve runs a server for the session on a socket until the test ends.
func serve(t *testing.T, s *Session) (*Client, *Server) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := socket.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(s, quietConfig())
	startServing(t, server, l)
	c := NewClient(path)
	return c, server
}

func startServing(t *testing.T, server *Server, l net.Listener) {
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}
