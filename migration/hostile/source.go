package hostile

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/identity"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// nobody is a process of which no death can be proved.
var nobody = identity.Process{BootID: "never booted", PIDNamespace: 1, TimeNamespace: 1, PID: 1, StartTicks: 1}

// MemoryBytes is how much memory the machine must have that is attacked, for what has to fit it.
const MemoryBytes = 64 << 20

// Source is one way to be wrong as a source.
type Source struct {
	Name string
	Mode wire.Mode
	// Refused: the destination says no to the machine, and waits for another.
	Refused bool
	// streams are opened, unless it is negative: then as many are promised.
	streams int
	offer   func(a *attack) error // in a local hand-over: what comes in place of the memory
	play    func(a *attack) error
}

// attack is a source on its connections, after ACCEPT.
type attack struct {
	ctx     context.Context
	dial    Dial
	hello   wire.Hello
	main    *peer
	streams []*peer
}

// peer is one connection.
type peer struct {
	net.Conn
	*wire.Writer
	r    *wire.Reader
	lend *lender
}

func newPeer(c net.Conn) *peer {
	l := &lender{Conn: c}
	return &peer{c, wire.NewWriter(l), wire.NewReader(c), l}
}

// anything is every type of frame.
var anything = wire.Set(1<<wire.TypeCount - 1)

// Attack plays the source to the destination that dial leads to; description is one that it can build. It
// returns when the destination has hung up, or ctx ends, and its error says only how.
func (s Source) Attack(ctx context.Context, dial Dial, generation uint64, description []byte) error {
	streams := max(s.streams, -s.streams)
	a := &attack{ctx: ctx, dial: dial, hello: wire.Hello{
		Purpose: wire.PurposeMigrate, Mode: s.Mode, Streams: streams, Build: "hostile", MachineID: "hostile", Generation: generation,
		Process: nobody, Journal: "/dev/zero",
	}}
	var err error
	if a.main, err = a.open(a.hello); err != nil {
		return err
	}
	defer a.main.Close()
	if err := a.main.Bytes(wire.TypeDescription, description); err != nil {
		return err
	}
	if s.offer != nil {
		if err := s.offer(a); err != nil {
			return err
		}
	}
	if _, err := a.main.r.Next(wire.Of(wire.TypeAccept)); err != nil {
		return fmt.Errorf("not accepted: %w", err)
	}
	for i := range s.streams {
		hello := a.hello
		hello.Purpose, hello.Stream = wire.PurposeStream, i+1
		p, err := a.open(hello)
		if err != nil {
			return err
		}
		defer p.Close()
		a.streams = append(a.streams, p)
	}
	if err := s.play(a); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, a.main)
	return err
}

// open dials and exchanges HELLO.
func (a *attack) open(hello wire.Hello) (*peer, error) {
	c, err := a.dial(a.ctx)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(a.ctx, func() { _ = c.Close() })
	p := newPeer(c)
	if err := p.Message(wire.TypeHello, hello); err != nil {
		return nil, err
	}
	_, err = p.r.Next(wire.Of(wire.TypeHello))
	return p, err
}

// record is the header of a record of pages, and payload behind it.
func record(kind wire.Kind, first uint64, count uint32, payload []byte) []byte {
	out := make([]byte, wire.RecordBytes, wire.RecordBytes+len(payload))
	binary.LittleEndian.PutUint64(out, first)
	out[8] = byte(kind)
	if kind == wire.KindLines {
		out[9], out[10], out[11] = byte(len(payload)), byte(len(payload)>>8), byte(len(payload)>>16)
	}
	binary.LittleEndian.PutUint32(out[12:], count)
	return append(out, payload...)
}

// pages sends one PAGES frame on the main connection.
func pages(kind wire.Kind, first uint64, count uint32, payload []byte) func(*attack) error {
	return func(a *attack) error { return a.main.Bytes(wire.TypePages, record(kind, first, count, payload)) }
}

func message(t wire.Type, msg any) func(*attack) error {
	return func(a *attack) error { return a.main.Message(t, msg) }
}

func payload(t wire.Type, content []byte) func(*attack) error {
	return func(a *attack) error { return a.main.Bytes(t, content) }
}

// inTurn is the steps one after the other, until one fails.
func inTurn[T any](steps ...func(T) error) func(T) error {
	return func(to T) error {
		for _, step := range steps {
			if err := step(to); err != nil {
				return err
			}
		}
		return nil
	}
}

// floodFor bounds what would go on for ever.
const floodFor = time.Second

func flood(step func(a *attack, round int) error) func(*attack) error {
	return func(a *attack) error {
		for round, end := 1, time.Now().Add(floodFor); time.Now().Before(end); round++ {
			if err := step(a, round); err != nil {
				return err
			}
		}
		return a.main.Close()
	}
}

// Sources lists all.
func Sources() []Source {
	page := bytes.Repeat([]byte{0xee}, memory.PageSize)
	onePage := pages(wire.KindData, 1, 1, page)
	paused := message(wire.TypeRoundEnd, wire.RoundEnd{Round: 1, Paused: true})
	allPaused := func(a *attack) error { // streams and main connection
		for _, p := range a.streams {
			if err := p.Message(wire.TypeRoundEnd, wire.RoundEnd{Round: 1, Paused: true}); err != nil {
				return err
			}
		}
		return paused(a)
	}
	return append([]Source{
		{Name: "page outside RAM", Mode: wire.ModePrecopy, play: pages(wire.KindData, 1<<40, 1, page)},
		{Name: "zeros outside RAM", Mode: wire.ModePrecopy, play: pages(wire.KindZero, 0, 1<<32-1, nil)},
		{Name: "mask of no lines", Mode: wire.ModePrecopy, play: pages(wire.KindLines, 1, 1, make([]byte, 10))},
		{Name: "delta cut short", Mode: wire.ModePrecopy, play: pages(wire.KindLines, 1, 1, []byte{0, 0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})},
		{Name: "unknown head", Mode: wire.ModePrecopy, play: pages(wire.KindLines, 1, 1, []byte{0, 0xc0})},
		{Name: "lines outside RAM", Mode: wire.ModePrecopy, play: pages(wire.KindLines, 1<<40, 1, append([]byte{0, 0x40}, page[:64]...))},
		{Name: "flood of zeros", Mode: wire.ModePrecopy, play: flood(func(a *attack, _ int) error {
			return a.main.Bytes(wire.TypePages, bytes.Repeat(record(wire.KindZero, 0, 1, nil), 1<<10))
		})},
		{Name: "rounds without end", Mode: wire.ModePrecopy, play: flood(func(a *attack, round int) error {
			if err := a.main.Message(wire.TypeRoundEnd, wire.RoundEnd{Round: round}); err != nil {
				return err
			}
			_, err := a.main.r.Next(wire.Of(wire.TypeRoundAck))
			return err
		})},
		{Name: "acks not read", Mode: wire.ModePrecopy, play: flood(func(a *attack, round int) error {
			return a.main.Message(wire.TypeRoundEnd, wire.RoundEnd{Round: round})
		})},
		{Name: "round of pages that never came", Mode: wire.ModePrecopy, play: inTurn(onePage, message(wire.TypeRoundEnd, wire.RoundEnd{Round: 1, Pages: 1 << 40}))},
		{Name: "zstd bomb", Mode: wire.ModePrecopy, play: bomb},
		{Name: "rubbish of zstd", Mode: wire.ModePrecopy, play: payload(wire.TypePagesZstd, page)},
		{Name: "state of rubbish", Mode: wire.ModePrecopy, play: inTurn(onePage, message(wire.TypeRoundEnd, wire.RoundEnd{Round: 1, Pages: 1, Paused: true}), payload(wire.TypeState, bytes.Repeat(page, 1<<10)))},
		{Name: "streams never opened", Mode: wire.ModePrecopy, streams: -8, play: inTurn(paused, payload(wire.TypeState, page))},
		{Name: "a thousand connections", Mode: wire.ModePrecopy, play: crowd},
		{Name: "absent outside RAM", Mode: wire.ModePostcopy, streams: 2, play: payload(wire.TypeAbsent, binary.AppendUvarint(binary.AppendUvarint(nil, 1<<40), 1))},
		{Name: "all absent", Mode: wire.ModePostcopy, streams: 2, play: payload(wire.TypeAbsent, binary.AppendUvarint(binary.AppendUvarint(nil, 0), 1<<52-1))},
		{Name: "absent twice", Mode: wire.ModePostcopy, streams: 2, play: inTurn(payload(wire.TypeAbsent, []byte{0, 1}), payload(wire.TypeAbsent, []byte{0, 1}))},
		{Name: "pages to what is absent", Mode: wire.ModePostcopy, streams: 2, play: inTurn(payload(wire.TypeAbsent, []byte{1, 1}), onePage)},
		{Name: "absent in pre-copy", Mode: wire.ModePrecopy, play: payload(wire.TypeAbsent, []byte{0, 1})},
		{Name: "commit at once", Mode: wire.ModePrecopy, play: payload(wire.TypeCommit, nil)},
		{Name: "pages to what is present", Mode: wire.ModePostcopy, streams: 2, play: inTurn(payload(wire.TypeAbsent, []byte{0, 1}), func(a *attack) error {
			return a.streams[0].Bytes(wire.TypePages, record(wire.KindData, 5, 1, page))
		}, payload(wire.TypeState, page))},
		{Name: "hybrid: absent in a round", Mode: wire.ModeHybrid, streams: 2, play: inTurn(onePage, payload(wire.TypeAbsent, []byte{0, 1}))},
		{Name: "hybrid: absent outside RAM", Mode: wire.ModeHybrid, streams: 2, play: inTurn(allPaused, payload(wire.TypeAbsent, binary.AppendUvarint(binary.AppendUvarint(nil, 1<<40), 1)))},
		{Name: "hybrid: commit after a round", Mode: wire.ModeHybrid, streams: 2, play: inTurn(allPaused, payload(wire.TypeCommit, nil))},
		{Name: "hybrid: state of rubbish", Mode: wire.ModeHybrid, streams: 2, play: inTurn(allPaused, payload(wire.TypeAbsent, []byte{0, 1}), payload(wire.TypeState, page))},
	}, locals()...)
}

// bomb sends a frame of some hundred bytes that says it is a gigabyte.
func bomb(a *attack) error {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		return err
	}
	return a.main.Bytes(wire.TypePagesZstd, enc.EncodeAll(make([]byte, 64<<20), nil))
}

// crowd opens a thousand connections and says nothing on them.
func crowd(a *attack) error {
	for range 1000 {
		c, err := a.dial(a.ctx)
		if err != nil {
			break // it may take no more
		}
		defer c.Close()
	}
	return a.main.Close()
}
