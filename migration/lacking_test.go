package migration

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/postcopy"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// lackingTarget is a machine that says when it has been told what it lacks.
type lackingTarget struct {
	*side
	told chan struct{}
	goOn <-chan struct{} // if not nil it is waited for
}

func (l *lackingTarget) HomeMissing(*memory.Demand) (postcopy.LineMemory, error) {
	close(l.told)
	if l.goOn != nil {
		<-l.goOn
	}
	return nil, nil
}

// playSource plays a source to a destination: steps are what follows ACCEPT, on the main connection and on the first
// stream. It returns what Receive does.
func (p *pair) playSource(target Target, mode wire.Mode, streams int, steps func(main, stream *rawWriter)) error {
	t := p.t
	t.Helper()
	p.listenUnix()
	received := make(chan error, 1)
	go func() {
		_, err := p.l.Receive(t.Context(), target)
		received <- err
	}()
	hello := hostileHello()
	hello.Mode, hello.Streams = mode, streams
	var reads sync.WaitGroup
	defer reads.Wait()
	open := func(hello wire.Hello) (net.Conn, *rawWriter, *wire.Reader) {
		conn, err := p.l.Address().dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w, r := newRawWriter(conn), wire.NewReader(conn)
		if err := w.Message(wire.TypeHello, hello); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(wire.Of(wire.TypeHello)); err != nil {
			t.Fatal(err)
		}
		return conn, w, r
	}
	conn, main, r := open(hello)
	defer conn.Close()
	if err := main.Bytes(wire.TypeDescription, []byte(`{"shape":1}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(wire.Of(wire.TypeAccept)); err != nil {
		t.Fatal(err)
	}
	reads.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	hello.Purpose, hello.Stream = wire.PurposeStream, 1
	streamConn, stream, _ := open(hello)
	defer streamConn.Close()
	steps(main, stream)
	select {
	case err := <-received:
		return err
	case <-time.After(hangGuard):
	}
	t.Error("the destination hangs")
	_ = p.dst.mem.Abandon()
	_, _ = conn.Close(), streamConn.Close()
	return <-received
}

// lacking is playSource in post-copy, to a destination that lacks its page 1. It must discard the machine.
func (p *pair) lacking(target Target, told <-chan struct{}, steps func(main, stream *rawWriter)) {
	p.t.Helper()
	err := p.playSource(target, wire.ModePostcopy, 2, func(main, stream *rawWriter) {
		if err := main.Bytes(wire.TypeAbsent, []byte{1, 1}); err != nil {
			p.t.Fatal(err)
		}
		<-told
		steps(main, stream)
	})
	if !isDiscarded(err) {
		p.t.Errorf("received: %v", err)
	}
	p.verifyLaw(source)
}

// eventConn says when it has brought a page, and when it is not read any more.
type eventConn struct {
	net.Conn
	event func()
}

func (c *eventConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n >= memory.PageSize {
		c.event()
	}
	return n, err
}

func (c *eventConn) SetReadDeadline(at time.Time) error {
	if at.IsZero() {
		c.event()
	}
	return c.Conn.SetReadDeadline(at)
}

// TestPagesToWhatIsAbsent: between ABSENT and the commit nobody brings a page, so who stored to one would wait for ever.
func TestPagesToWhatIsAbsent(t *testing.T) {
	page := record(wire.KindData, 1, 1, 1)
	for name, steps := range map[string]func(main, stream *rawWriter, settled <-chan struct{}){
		"main connection": func(main, _ *rawWriter, _ <-chan struct{}) { _ = main.Bytes(wire.TypePages, page) },
		"stream": func(main, stream *rawWriter, settled <-chan struct{}) {
			_ = stream.Bytes(wire.TypePages, page)
			<-settled
			_ = main.Bytes(wire.TypeState, []byte(`{}`))
			_ = main.Message(wire.TypeAbort, wire.NewReason("that was all", false))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			settled := make(chan struct{})
			event := sync.OnceFunc(func() { close(settled) })
			p.wrap = func(_ string, c net.Conn) net.Conn { return &eventConn{c, event} }
			target := &lackingTarget{side: p.dst, told: make(chan struct{})}
			if name == "stream" {
				target.goOn = settled
			}
			p.lacking(target, target.told, func(main, stream *rawWriter) { steps(main, stream, settled) })
		})
	}
}

// touchedTarget is a lackingTarget whose restore looks at pages.
type touchedTarget struct {
	lackingTarget
	pages []memory.GPA
}

func (l *touchedTarget) RestorePages([]byte) ([]memory.GPA, error) { return l.pages, nil }

// TestStateOfWhatIsAbsent: a restore that waits for a page in the kernel is not to be interrupted.
func TestStateOfWhatIsAbsent(t *testing.T) {
	p := newPair(t)
	p.dst.onRestore = func() error {
		t.Error("the state was restored though its page is absent")
		return nil
	}
	told := make(chan struct{})
	target := &touchedTarget{lackingTarget{side: p.dst, told: told}, []memory.GPA{0, 1 << 50, memory.PageSize}}
	p.lacking(target, told, func(main, _ *rawWriter) {
		_ = main.Bytes(wire.TypeState, []byte(`{}`))
		_ = main.Message(wire.TypeAbort, wire.NewReason("that was all", false))
	})
}

// TestStreamWithoutEnd: a stream that says nothing when a round is over elsewhere holds the destination for no longer than
// other silences do.
func TestStreamWithoutEnd(t *testing.T) {
	p := newPair(t)
	p.opts.PeerTimeout = time.Second
	err := p.playSource(p.dst, wire.ModePrecopy, 1, func(main, _ *rawWriter) {
		_ = main.Message(wire.TypeRoundEnd, wire.RoundEnd{Round: 1})
	})
	if !isDiscarded(err) || !errors.Is(err, ErrPeerSilent) {
		t.Errorf("received: %v", err)
	}
	p.verifyLaw(source)
}
