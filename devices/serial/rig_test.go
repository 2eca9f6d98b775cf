package serial

import (
	"bytes"
	"context"
	"sync"
	"testing"
)

// sink is a host's writer and an interrupt line that tests can look at.
type sink struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	high  bool
	edges int // rising
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *sink) Set(high bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if high && !s.high {
		s.edges++
	}
	s.high = high
}

func (s *sink) irq() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.high
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// port is a UART with a guest's and a host's side.
type port struct {
	*Device
	*sink
	t testing.TB
}

func newPort(t testing.TB) *port {
	t.Helper()
	s := &sink{}
	p := &port{New(s, s), s, t}
	t.Cleanup(p.Close)
	return p
}

// out is a guest's write to a register, in its read.
func (p *port) out(reg uint64, v byte) { p.Device.Write(reg, []byte{v}) }

func (p *port) in(reg uint64) byte {
	b := make([]byte, 1)
	p.Read(reg, b)
	return b[0]
}

func (p *port) flush() {
	p.t.Helper()
	if err := p.Flush(context.Background()); err != nil {
		p.t.Fatal(err)
	}
}

func (p *port) want(what string, got, want byte) {
	p.t.Helper()
	if got != want {
		p.t.Errorf("%s = %#02x, want %#02x", what, got, want)
	}
}

// stalled is a writer that takes nothing until it is opened, one write at a time.
type stalled struct {
	sink
	entered chan int // the size of each write as it begins
	open    chan struct{}
}

func newStalled() *stalled {
	return &stalled{entered: make(chan int, 1<<10), open: make(chan struct{})}
}

func (s *stalled) Write(p []byte) (int, error) {
	s.entered <- len(p)
	<-s.open
	return s.sink.Write(p)
}
