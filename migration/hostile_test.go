package migration

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	logrustest "github.com/sirupsen/logrus/hooks/test"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/identity"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// rawWriter writes frames with a right header and any payload.
type rawWriter struct {
	*wire.Writer
	out io.Writer
}

func newRawWriter(out io.Writer) *rawWriter { return &rawWriter{wire.NewWriter(out), out} }

func hostileHello() wire.Hello {
	return wire.Hello{
		Purpose: wire.PurposeMigrate, Mode: wire.ModePrecopy, Build: "evil", MachineID: "guest", Generation: 1,
		Process: identity.Process{BootID: "boot", PIDNamespace: 1, TimeNamespace: 1, PID: 666, StartTicks: 1},
		Journal: "/dev/zero",
	}
}

// record is the header of a page record, whatever it says.
func record(kind wire.Kind, first uint64, count uint32, pages int) []byte {
	out := make([]byte, wire.RecordBytes+pages*memory.PageSize)
	binary.LittleEndian.PutUint64(out, first)
	out[8] = byte(kind)
	binary.LittleEndian.PutUint32(out[12:], count)
	for i := wire.RecordBytes; i < len(out); i++ {
		out[i] = 0xee
	}
	return out
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// step is one move of a hostile source.
type step func(w *rawWriter) error

// play does the steps until one fails, as it does when the other side has hung up.
func (w *rawWriter) play(steps ...step) error {
	for _, s := range steps {
		if err := s(w); err != nil {
			return err
		}
	}
	return nil
}

func sendBytes(t wire.Type, payload []byte) step {
	return func(w *rawWriter) error { return w.Bytes(t, payload) }
}

func sendMessage(t wire.Type, msg any) step {
	return func(w *rawWriter) error { return w.Message(t, msg) }
}

func sendRaw(b []byte) step {
	return func(w *rawWriter) error {
		_, err := w.out.Write(b)
		return err
	}
}

// opening brings the destination to receiving.
func opening() []step {
	return []step{sendMessage(wire.TypeHello, hostileHello()), sendBytes(wire.TypeDescription, []byte(`{"shape":1}`))}
}

func TestHostileStreams(t *testing.T) {
	page := record(wire.KindData, 1, 1, 1)
	live := sendMessage(wire.TypeRoundEnd, wire.RoundEnd{Round: 1, Pages: 1})
	last := sendMessage(wire.TypeRoundEnd, wire.RoundEnd{Round: 1, Pages: 1, Paused: true})
	for name, steps := range map[string][]step{
		"state at once":        {sendBytes(wire.TypeState, nil)},
		"commit at once":       {sendBytes(wire.TypeCommit, nil)},
		"second hello":         {sendMessage(wire.TypeHello, hostileHello())},
		"second description":   {sendBytes(wire.TypeDescription, nil)},
		"page beyond memory":   {sendBytes(wire.TypePages, record(wire.KindData, 1<<40, 1, 1))},
		"page in the gap":      {sendBytes(wire.TypePages, record(wire.KindData, testPages/2, 1, 1))},
		"run over the end":     {sendBytes(wire.TypePages, record(wire.KindData, testPages/2-1, 2, 2))},
		"zeros without end":    {sendBytes(wire.TypePages, record(wire.KindZero, 0, 1<<32-1, 0))},
		"page repeated":        {sendBytes(wire.TypePages, join(page, page))},
		"page repeated later":  {sendBytes(wire.TypePages, page), sendBytes(wire.TypePages, page)},
		"pages out of order":   {sendBytes(wire.TypePages, join(record(wire.KindZero, 5, 1, 0), page))},
		"page cut short":       {sendBytes(wire.TypePages, page[:100])},
		"unknown record":       {sendBytes(wire.TypePages, record(77, 1, 1, 1))},
		"miscounted round":     {sendBytes(wire.TypePages, page), sendMessage(wire.TypeRoundEnd, wire.RoundEnd{Round: 1, Pages: 2})},
		"round out of order":   {sendBytes(wire.TypePages, page), sendMessage(wire.TypeRoundEnd, wire.RoundEnd{Round: 2, Pages: 1})},
		"round repeated":       {sendBytes(wire.TypePages, page), live, live},
		"state while running":  {sendBytes(wire.TypePages, page), live, sendBytes(wire.TypeState, []byte(`{}`))},
		"state in a round":     {sendBytes(wire.TypePages, page), last, sendBytes(wire.TypePages, page), sendBytes(wire.TypeState, []byte(`{}`))},
		"running after pause":  {sendBytes(wire.TypePages, page), last, sendMessage(wire.TypeRoundEnd, wire.RoundEnd{Round: 2})},
		"bad state":            {sendBytes(wire.TypePages, page), last, sendBytes(wire.TypeState, []byte(`]`))},
		"state twice":          {sendBytes(wire.TypePages, page), last, sendBytes(wire.TypeState, []byte(`{}`)), sendBytes(wire.TypeState, []byte(`{}`))},
		"done instead":         {sendBytes(wire.TypePages, page), last, sendBytes(wire.TypeState, []byte(`{}`)), sendBytes(wire.TypeDone, nil)},
		"noise":                {sendRaw(bytes.Repeat([]byte("noise"), 100))},
		"half a frame":         {sendRaw([]byte("FLMG\x01\x00\x05\x00"))},
		"huge frame":           {sendRaw([]byte("FLMG\x01\x00\x08\x00\xff\xff\xff\xff\x02\x00\x00\x00\x00\x00\x00\x00"))},
		"aborted":              {sendMessage(wire.TypeAbort, wire.NewReason("changed my mind", true))},
		"abort that is no one": {sendBytes(wire.TypeAbort, []byte(`"`))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.listenUnix()
			received := p.receiveInBackground(t.Context())
			conn := p.stranger()
			var reads sync.WaitGroup
			reads.Go(func() { _, _ = io.Copy(io.Discard, conn) })
			_ = newRawWriter(conn).play(append(opening(), steps...)...)
			_ = conn.(*net.UnixConn).CloseWrite()
			if err := <-received; !isDiscarded(err) {
				t.Errorf("received: %v", err)
			}
			reads.Wait()
			p.verifyLaw(source)
			if p.dst.owned || p.dst.built {
				t.Error("the machine was not discarded")
			}
		})
	}
}

// TestStrangersAreIgnored: what is no source does not end the wait for one.
func TestStrangersAreIgnored(t *testing.T) {
	p := newPair(t)
	p.listenUnix()
	badHello := hostileHello()
	badHello.Generation = 0
	resolve := hostileHello()
	resolve.Purpose = wire.PurposeResolve
	for _, steps := range [][]step{
		{sendRaw([]byte("GET / HTTP/1.1\r\nHost: here\r\n\r\n"))},
		{sendRaw(nil)},
		{sendMessage(wire.TypeHello, badHello)},
		{sendMessage(wire.TypeHello, resolve), sendBytes(wire.TypeCommit, nil)},
		{sendMessage(wire.TypeHello, resolve), sendBytes(wire.TypeResolve, nil)},
	} {
		conn, err := p.l.Address().dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w := newRawWriter(conn)
		for _, s := range steps {
			_ = s(w)
		}
		_ = conn.(*net.UnixConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	if out := p.migrate(); out.sendErr != nil {
		t.Error(out.sendErr)
	}
	p.verifyLaw(destination)
}

// TestStrangersDoNotFillTheLog: what anybody can cause is logged at a limited rate (design law 5).
func TestStrangersDoNotFillTheLog(t *testing.T) {
	p := newPair(t)
	log, lines := logrustest.NewNullLogger()
	l, err := Listen(t.Context(), Address{network: "unix", address: filepath.Join(t.TempDir(), "s")},
		ListenOptions{Journal: p.dst.journal, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const strangers = 10 * LogFirst
	for range strangers {
		conn, err := l.Address().dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("GET / HTTP/1.1\r\nHost: here, which is no place for it\r\n\r\n"))
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	if n := len(lines.AllEntries()); n < LogFirst || n > 2*LogFirst {
		t.Errorf("%d lines for %d strangers", n, strangers)
	}
}

// TestOtherVersion: both sides name both versions, and nothing is paused.
func TestOtherVersion(t *testing.T) {
	p := newPair(t)
	p.listenUnix()
	var hello bytes.Buffer
	if err := wire.NewWriter(&hello).Message(wire.TypeHello, hostileHello()); err != nil {
		t.Fatal(err)
	}
	future := hello.Bytes()
	future[4]++
	conn := p.stranger()
	if _, err := conn.Write(future); err != nil {
		t.Fatal(err)
	}
	f, err := wire.NewReader(conn).Next(wire.Of(wire.TypeRefuse))
	if err != nil {
		t.Fatal(err)
	}
	if reason, err := wire.Decode[wire.Reason](f); err != nil || !bytes.Contains([]byte(reason.Text), []byte(fmt.Sprintf("version %d", wire.Version+1))) {
		t.Errorf("refused with %+v, %v", reason, err)
	}

	// The other way round: a destination of the future.
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write(future)
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}()
	p.opts.hooks = p.src.hooks
	_, err = Send(t.Context(), p.src, Address{network: "unix", address: ln.Addr().String()}, p.opts)
	var version *wire.VersionError
	if !errors.As(err, &version) || version.Peer != wire.Version+1 || p.src.pauses != 0 {
		t.Errorf("%v after %d pauses", err, p.src.pauses)
	}
	p.verifyLaw(source)
}

// TestHostileDestinations: a destination that answers wrongly leaves the guest where it is.
func TestHostileDestinations(t *testing.T) {
	hello := func(w *rawWriter) error {
		h := hostileHello()
		return w.Message(wire.TypeHello, h)
	}
	accept := sendBytes(wire.TypeAccept, nil)
	otherHello := hostileHello()
	otherHello.MachineID = "another"
	for name, steps := range map[string][]step{
		"hangs up":            {},
		"noise":               {sendRaw(bytes.Repeat([]byte("noise"), 100))},
		"accepts at once":     {accept},
		"another machine":     {sendMessage(wire.TypeHello, otherHello)},
		"ready too early":     {hello, accept, sendBytes(wire.TypeReady, nil)},
		"running too early":   {hello, accept, sendMessage(wire.TypeRunning, wire.Running{})},
		"acks too often":      {hello, accept, sendBytes(wire.TypeRoundAck, nil), sendBytes(wire.TypeRoundAck, nil), sendBytes(wire.TypeRoundAck, nil)},
		"a source's frame":    {hello, accept, sendBytes(wire.TypeCommit, nil)},
		"refuses in nonsense": {hello, sendBytes(wire.TypeRefuse, []byte(`1`))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			// The first connection is hostile; the next ones find nobody.
			ours, theirs := net.Pipe()
			first := true
			p.opts.hooks = p.src.hooks
			p.opts.PeerTimeout = 200 * time.Millisecond
			p.opts.hooks.dial = func(context.Context) (net.Conn, error) {
				if !first {
					return nil, errNet
				}
				first = false
				return ours, nil
			}
			var tasks sync.WaitGroup
			tasks.Go(func() { _, _ = io.Copy(io.Discard, theirs) })
			tasks.Go(func() {
				if newRawWriter(theirs).play(steps...) == nil && len(steps) == 0 {
					theirs.Close()
				}
			})
			_, err := Send(t.Context(), p.src, Address{}, p.opts)
			theirs.Close()
			tasks.Wait()
			if err == nil {
				t.Error("sent to a hostile destination")
			}
			p.verifyLaw(source)
		})
	}
}

// scriptConn plays a stream; at its end it ends the context, as an operator would end a destination
// that waits for a source without proof.
type scriptConn struct {
	net.Conn // nil: only what is here is used
	stream   *bytes.Reader
	end      context.CancelFunc
}

func (c *scriptConn) Read(p []byte) (int, error) {
	n, err := c.stream.Read(p)
	if err != nil && len(p) > 0 {
		c.end()
	}
	return n, err
}

func (c *scriptConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *scriptConn) Close() error                     { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

type closedListener struct{ net.Listener }

func (closedListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (closedListener) Close() error              { return nil }

// script turns fuzz input into frames with right checksums and numbers: a type, two bytes of length and
// the payload, again and again. What does not parse is sent as it is.
func script(data []byte) []byte {
	var out bytes.Buffer
	w := wire.NewWriter(&out)
	for len(data) >= 3 {
		size := int(binary.LittleEndian.Uint16(data[1:]))
		if size > len(data)-3 || w.Bytes(wire.Type(data[0])%wire.TypeCount, data[3:3+size]) != nil {
			break
		}
		data = data[3+size:]
	}
	out.Write(data)
	return out.Bytes()
}

func scripted(t wire.Type, payload []byte) []byte {
	return join([]byte{byte(t), byte(len(payload)), byte(len(payload) >> 8)}, payload)
}

// FuzzReceiver plays whole hostile streams to a destination.
func FuzzReceiver(f *testing.F) {
	page := record(wire.KindData, 1, 1, 1)
	opening := scripted(wire.TypeDescription, []byte(`{"shape":1}`))
	end := scripted(wire.TypeRoundEnd, []byte(`{"round":1,"pages":1,"zero_pages":0,"paused":true}`))
	state := scripted(wire.TypeState, []byte(`{"steps":1}`))
	f.Add([]byte{})
	f.Add(opening)
	f.Add(join(opening, scripted(wire.TypePages, page)))
	f.Add(join(opening, scripted(wire.TypePages, join(page, record(wire.KindZero, 2, 1, 0)))))
	f.Add(join(opening, scripted(wire.TypePages, page), end, state))
	f.Add(join(opening, scripted(wire.TypePages, page), end, state, scripted(wire.TypeCommit, nil), scripted(wire.TypeDone, nil)))
	f.Add(join(opening, scripted(wire.TypeAbort, []byte(`{"text":"x"}`))))
	mem, err := memory.New(testRegions(16), memory.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { mem.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := &world{}
		m := machineOf(mem, w, destination)
		hello := hostileHello()
		l, err := newListener(closedListener{}, ListenOptions{
			Journal: journal.New("/j", nullSink{}, nil),
			hooks:   hooks{clock: hostClock{}, liveness: unprovable{}, plan: &inject.Plan{}, self: &hello.Process},
		})
		if err != nil {
			t.Fatal(err)
		}
		v := newVisitor(&scriptConn{stream: bytes.NewReader(script(data)), end: cancel}, time.Second)
		v.hello = &hello
		got, err := l.serve(ctx, v, m)
		m.end()
		l.Close()
		if owner := err == nil; owner != m.owned || owner == isDiscarded(err) || owner != (got != nil) {
			t.Fatalf("owned %v, %+v, %v", m.owned, got, err)
		}
		if !m.owned && m.built {
			t.Fatal("the machine was not discarded")
		}
	})
}
