package serial

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var errTest = errors.New("test ended it")

func ended() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errTest)
	return ctx
}

func TestBackPressure(t *testing.T) {
	w := newStalled()
	p := &port{New(&w.sink, w), &w.sink, t}
	defer p.Close()
	p.out(regIER, ierTHRE)
	n := 0
	for ; p.in(regLSR)&lsrTHRE != 0; n++ {
		p.out(regData, byte(n))
	}
	if n != QueueBytes-fifoBytes+1 {
		t.Errorf("THRE fell after %d bytes", n)
	}
	if p.irq() {
		t.Error("the transmitter is full and interrupts")
	}
	p.want("LSR", p.in(regLSR), 0)
	for ; n < QueueBytes+3; n++ {
		p.out(regData, byte(n)) // 15 fit, the rest is lost
	}
	if got := p.Metrics().TXDropped; got != 3 {
		t.Errorf("%d bytes dropped, want 3", got)
	}
	if err := p.LostOutput(); !errors.Is(err, errNotPolled) || !strings.HasPrefix(err.Error(), "3 bytes") {
		t.Errorf("lost output: %v", err)
	}
	close(w.open)
	p.flush()
	if !p.irq() {
		t.Error("no interrupt when the transmitter has room again")
	}
	want := make([]byte, QueueBytes)
	for i := range want {
		want[i] = byte(i)
	}
	if p.String() != string(want) {
		t.Error("output differs")
	}
}

// A guest that only writes on each interrupt, and never reads IIR, must get an edge
// for each byte.
func TestEdgeWithoutIIR(t *testing.T) {
	p := newPort(t)
	p.out(regIER, ierTHRE)
	for i := range 5 {
		if p.edges != i+1 {
			t.Errorf("%d edges after %d bytes", p.edges, i)
		}
		p.out(regData, 'x')
	}
}

// lateCut is a writer whose write ends late after it was cut, as on a busy host.
type lateCut struct{ *stalled }

func (w lateCut) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() {
		time.AfterFunc(time.Millisecond, func() { close(w.open) })
	}
	return nil
}

// TestPauseAwaitsCutWrite: a write that was cut is waited for, though the time for one that can't be is over.
func TestPauseAwaitsCutWrite(t *testing.T) {
	w := newStalled()
	p := &port{New(&w.sink, lateCut{w}), &w.sink, t}
	defer p.Close()
	p.out(regData, 'a')
	<-w.entered
	if err := p.PauseContext(ended()); err != nil {
		t.Errorf("%v for a write that ends", err)
	}
}

// Pause lets the write that runs end; State then has the rest, once.
func TestPauseExactlyOnce(t *testing.T) {
	w := newStalled()
	a := &port{New(&w.sink, w), &w.sink, t}
	defer a.Close()
	a.out(regData, 'a')
	if n := <-w.entered; n != 1 {
		t.Fatalf("first write of %d bytes", n)
	}
	for _, b := range []byte("bcdef") {
		a.out(regData, b)
	}
	if err := a.PauseContext(ended()); !errors.Is(err, errTest) {
		t.Errorf("PauseContext of a stalled writer: %v", err)
	}
	paused := make(chan struct{})
	go func() { a.Pause(); close(paused) }()
	for isPaused := false; !isPaused; runtime.Gosched() {
		a.Device.mu.Lock()
		isPaused = a.paused
		a.Device.mu.Unlock()
	}
	close(w.open)
	<-paused
	s := a.State()
	if a.String() != "a" || string(s.TX) != "bcdef" {
		t.Fatalf("host has %q, state has %q", a.String(), s.TX)
	}

	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back State
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	b := newPort(t)
	if err := b.Restore(back); err != nil {
		t.Fatal(err)
	}
	b.out(regData, 'g')
	if !errors.Is(b.Flush(context.Background()), ErrPaused) {
		t.Error("a restored port is not paused")
	}
	if b.String() != "" {
		t.Errorf("%q came out before Resume", b.String())
	}
	b.Resume()
	b.flush()
	if got := a.String() + b.String(); got != "abcdefg" {
		t.Errorf("together %q", got)
	}
}

// A connection whose peer does not read must not hold up a pause.
func TestPauseCutsWrite(t *testing.T) {
	host, peer := net.Pipe()
	defer func() { _ = host.Close(); _ = peer.Close() }()
	p := &port{New(nil, host), &sink{}, t}
	defer p.Close()
	text := strings.Repeat("0123456789", 10)
	for _, b := range []byte(text) {
		p.out(regData, b)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(peer, got[:1]); err != nil { // a write has begun
		t.Fatal(err)
	}
	p.Pause()
	if s := p.State(); text[:1]+string(s.TX) != text {
		t.Errorf("state has %q", s.TX)
	}
	if m := p.Metrics(); m.TXErrors != 0 || m.TXLost != 0 {
		t.Errorf("metrics %+v", m)
	}
	p.Resume()
	if _, err := io.ReadFull(peer, got[1:]); err != nil || string(got) != text {
		t.Errorf("peer has %q, %v", got, err)
	}
}

// broken is a writer that fails in the given way.
type broken struct {
	n   int
	err error
}

func (b broken) Write([]byte) (int, error) { return b.n, b.err }

func TestBrokenWriter(t *testing.T) {
	for name, w := range map[string]broken{
		"error":      {0, io.ErrClosedPipe},
		"no success": {0, nil},
		"lies":       {1 << 30, nil},
		"negative":   {-1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := &port{New(nil, w), &sink{}, t}
			defer p.Close()
			p.out(regData, 'x')
			p.flush()
			m := p.Metrics()
			if m.TXBytes+m.TXLost != 1 || (m.TXErrors == 0) != (name == "lies") {
				t.Errorf("metrics %+v", m)
			}
		})
	}
}

func TestFeedContext(t *testing.T) {
	p := newPort(t)
	p.out(regIIR, fcrEnable)
	text := bytes.Repeat([]byte("abcdefghijklm"), 50)
	done := make(chan error)
	go func() {
		n, err := p.FeedContext(context.Background(), text)
		if n != len(text) {
			t.Errorf("fed %d of %d", n, len(text))
		}
		done <- err
	}()
	var got []byte
	for len(got) < len(text) {
		if p.in(regLSR)&lsrReady != 0 {
			got = append(got, p.in(regData))
		}
	}
	if err := <-done; err != nil || !bytes.Equal(got, text) {
		t.Errorf("%v; received %q", err, got)
	}
	if n, err := p.FeedContext(ended(), text); n != fifoBytes || !errors.Is(err, errTest) {
		t.Errorf("ended context: %d, %v", n, err)
	}
	go func() {
		_, err := p.FeedContext(context.Background(), text)
		done <- err
	}()
	p.Close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestFeedWhilePaused(t *testing.T) {
	p := newPort(t)
	p.Pause()
	if p.Feed([]byte("x")) != 0 {
		t.Error("a paused port took input that its state would miss")
	}
	p.Resume()
	if p.Feed([]byte("x")) != 1 {
		t.Error("no input after Resume")
	}
}

// TestAbandon: what is left when the run is over counts as lost, unless it goes out after all.
func TestAbandon(t *testing.T) {
	w := newStalled()
	p := &port{New(&w.sink, w), &w.sink, t}
	defer p.Close()
	for _, b := range []byte("hello") {
		p.out(regData, b)
	}
	<-w.entered
	if err := p.Flush(ended()); err == nil {
		t.Error("flushed into a stalled writer")
	}
	if err := p.LostOutput(); err != nil {
		t.Errorf("lost while it may still go out: %v", err)
	}
	for range 2 {
		p.Abandon()
		if err := p.LostOutput(); !errors.Is(err, ErrUnread) || !strings.HasPrefix(err.Error(), "5 bytes") {
			t.Errorf("lost output: %v", err)
		}
	}
	close(w.open)
	p.flush()
	if err := p.LostOutput(); err != nil {
		t.Errorf("all went out, and %v", err)
	}
}

func TestFlush(t *testing.T) {
	w := newStalled()
	p := &port{New(nil, w), &w.sink, t}
	p.flush() // nothing to do
	p.out(regData, 'x')
	<-w.entered
	if err := p.Flush(ended()); !errors.Is(err, errTest) {
		t.Errorf("ended context: %v", err)
	}
	p.Close() // must not wait for the writer
	if err := p.Flush(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := p.Restore(State{MSR: msrIdle}); !errors.Is(err, ErrState) {
		t.Errorf("Restore while writing: %v", err)
	}
	close(w.open)
	<-p.drained
}

func TestRestoreRefuses(t *testing.T) {
	good := State{MSR: msrIdle}
	for name, change := range map[string]func(*State){
		"IER":             func(s *State) { s.IER = 0x10 },
		"MCR":             func(s *State) { s.MCR = 0x20 },
		"FCR":             func(s *State) { s.FCR = 0x11 },
		"FCR off":         func(s *State) { s.FCR = 0x80 },
		"MSR":             func(s *State) { s.MSR = 0 },
		"receiver":        func(s *State) { s.FCR = 1; s.RX = make([]byte, fifoBytes+1) },
		"no FIFO":         func(s *State) { s.RX = make([]byte, 2) },
		"transmitter":     func(s *State) { s.TX = make([]byte, QueueBytes+1) },
		"full and signal": func(s *State) { s.TX = make([]byte, QueueBytes); s.THREPending = true },
	} {
		s := good
		change(&s)
		p := newPort(t)
		if err := p.Restore(s); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := newPort(t).Restore(good); err != nil {
		t.Error(err)
	}
}

func TestRestoreDrivesLine(t *testing.T) {
	p := newPort(t)
	if err := p.Restore(State{MSR: msrIdle, IER: ierRDA, RX: []byte{'x'}}); err != nil {
		t.Fatal(err)
	}
	if !p.irq() {
		t.Error("line low with a byte received")
	}
}

// freedLine is a line whose owner has freed it.
type freedLine struct {
	t     *testing.T
	freed atomic.Bool
}

func (l *freedLine) Set(bool) {
	if l.freed.Load() {
		l.t.Error("the line was driven after Close")
	}
}

// Close does not wait for a write that can't be cut short; when that ends at last, room
// in the queue must not reach for the line.
func TestCloseLeavesTheLine(t *testing.T) {
	w, line := newStalled(), &freedLine{t: t}
	p := &port{New(line, w), &w.sink, t}
	p.out(regIER, ierTHRE)
	for range QueueBytes {
		p.out(regData, 'x')
	}
	<-w.entered
	p.Close()
	line.freed.Store(true)
	close(w.open)
	<-p.drained
}
