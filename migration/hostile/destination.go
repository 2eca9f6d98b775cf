package hostile

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Destination is one way to be wrong as a destination.
type Destination struct {
	Name string
	Mode wire.Mode // in which it is to be met
	// Gone: it has said that it runs the guest, so that the source has given it away, and rightly.
	Gone bool
	// Keep: the source is to be kept, and has the checkpoint with this number in the end, from which its guest can go on. Lost:
	// from which it can't, since its state is rubbish.
	Keep, Lost bool
	Checkpoint uint64
	play       func(d *defence) error
}

// defence is a destination on its connections, after ACCEPT.
type defence struct {
	main, fault *peer
	mode        wire.Mode
	hello       wire.Hello
	more        chan *peer // later connections, greeted
	reverse     chan *peer // those for checkpoints
	description []byte
	state       []byte // the guest's
}

// Serve plays the destination to the source that comes, until ctx ends; then it closes ln. played is called when all
// that is wrong was done.
func (d Destination) Serve(ctx context.Context, ln net.Listener, played func()) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	played = sync.OnceFunc(played)
	defer played()
	def := &defence{mode: d.Mode, more: make(chan *peer, wire.MaxStreams), reverse: make(chan *peer, 1)}
	go def.accept(ctx, ln)
	def.main = <-def.more
	if def.main == nil {
		return nil, net.ErrClosed
	}
	f, err := def.main.r.Next(wire.Of(wire.TypeDescription))
	if err != nil {
		return nil, err
	}
	def.description = append([]byte(nil), f.Payload...)
	if err := d.play(def); err != nil {
		return def.description, err
	}
	played()
	<-ctx.Done()
	return def.description, nil
}

// accept greets all that come.
func (d *defence) accept(ctx context.Context, ln net.Listener) {
	defer close(d.more)
	defer close(d.reverse)
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		context.AfterFunc(ctx, func() { _ = c.Close() })
		p := newPeer(c)
		f, err := p.r.Next(wire.Of(wire.TypeHello))
		if err != nil {
			continue
		}
		hello, err := wire.Decode[wire.Hello](f)
		if err != nil {
			continue
		}
		d.hello = *hello
		answer := *hello
		answer.Build, answer.Process, answer.Journal = "hostile", nobody, "/dev/zero"
		if p.Message(wire.TypeHello, answer) != nil {
			continue
		}
		if hello.Purpose == wire.PurposeStream && d.mode != wire.ModePostcopy {
			go func() { _, _ = io.Copy(io.Discard, c) }() // pages of rounds
		}
		to := d.more
		if hello.Purpose == wire.PurposeReverse {
			to = d.reverse
		}
		select {
		case to <- p:
		default:
			_ = c.Close()
		}
	}
}

// accepts says ACCEPT.
func accepts(d *defence) error { return d.main.Signal(wire.TypeAccept) }

func says(t wire.Type) func(*defence) error {
	return func(d *defence) error { return d.main.Signal(t) }
}

// acks receives a round and says so.
func acks(d *defence) error {
	for {
		f, err := d.main.r.Next(anything)
		if err != nil {
			return err
		}
		if f.Type == wire.TypeRoundEnd {
			return d.main.Signal(wire.TypeRoundAck)
		}
	}
}

// receives takes everything up to STATE.
func receives(d *defence) error {
	for {
		f, err := d.main.r.Next(anything)
		if err != nil {
			return err
		}
		switch f.Type {
		case wire.TypeState:
			d.state = bytes.Clone(f.Payload)
			return nil
		case wire.TypeRoundEnd:
			end, err := wire.Decode[wire.RoundEnd](f)
			if err == nil && !end.Paused {
				err = d.main.Signal(wire.TypeRoundAck)
			}
			if err != nil {
				return err
			}
		}
	}
}

// leaves hangs up.
func leaves(d *defence) error { return d.main.Close() }

// hangsUp waits until the source does.
func hangsUp(d *defence) error {
	_ = d.main.SetReadDeadline(time.Now().Add(hangUpTime))
	_, err := io.Copy(io.Discard, d.main.Conn)
	return err
}

// runs receives everything up to STATE and says that the guest runs. The last of the streams is for faults.
func runs(d *defence) error {
	if err := receives(d); err != nil {
		return err
	}
	if err := d.main.Signal(wire.TypeReady); err != nil {
		return err
	}
	if _, err := d.main.r.Next(wire.Of(wire.TypeCommit)); err != nil {
		return err
	}
	for len(d.more) > 0 {
		d.fault = <-d.more
	}
	return d.main.Message(wire.TypeRunning, wire.Running{MonotonicNS: 1})
}

// requests floods the fault connection with requests of a page, and reads nothing.
func requests(page uint64) func(*defence) error {
	return func(d *defence) error {
		asked := wire.AppendRequest(nil, []uint64{page})
		for end := time.Now().Add(floodFor); time.Now().Before(end); {
			_ = d.fault.SetWriteDeadline(end)
			if err := d.fault.Bytes(wire.TypeRequest, asked); err != nil {
				break // it has hung up, as it should, or is as patient as we are not
			}
		}
		return nil
	}
}

// Destinations lists all.
func Destinations() []Destination {
	refuse := func(d *defence) error {
		return d.main.Message(wire.TypeRefuse, wire.NewReason("only looking", false))
	}
	complete := func(d *defence) error { return d.main.Message(wire.TypeComplete, wire.Complete{}) }
	running := func(d *defence) error { return d.main.Message(wire.TypeRunning, wire.Running{MonotonicNS: 1 << 62}) }
	return append([]Destination{
		{Name: "looks and refuses", Mode: wire.ModePrecopy, play: refuse},
		{Name: "ready before STATE", Mode: wire.ModePrecopy, play: inTurn(accepts, says(wire.TypeReady))},
		{Name: "runs before STATE", Mode: wire.ModePrecopy, play: inTurn(accepts, running)},
		{Name: "complete before STATE", Mode: wire.ModePostcopy, play: inTurn(accepts, complete)},
		{Name: "a source's frame", Mode: wire.ModePrecopy, play: inTurn(accepts, says(wire.TypeCommit))},
		{Name: "acks without rounds", Mode: wire.ModePrecopy, play: inTurn(accepts, says(wire.TypeRoundAck), says(wire.TypeRoundAck), says(wire.TypeRoundAck))},
		{Name: "requests outside RAM", Mode: wire.ModePostcopy, Gone: true, play: inTurn(accepts, runs, requests(1<<51))},
		{Name: "flood of requests", Mode: wire.ModePostcopy, Gone: true, play: inTurn(accepts, runs, requests(memory.PageSize))},
		{Name: "runs twice", Mode: wire.ModePostcopy, Gone: true, play: inTurn(accepts, runs, running, hangsUp)},
		{Name: "complete too early", Mode: wire.ModePostcopy, Gone: true, play: inTurn(accepts, runs, complete, hangsUp)},

		{Name: "hybrid: more acks than rounds", Mode: wire.ModeHybrid, play: inTurn(accepts, acks, says(wire.TypeRoundAck), says(wire.TypeRoundAck))},
		{Name: "hybrid: complete in a round", Mode: wire.ModeHybrid, play: inTurn(accepts, acks, complete)},
		{Name: "hybrid: runs in a round", Mode: wire.ModeHybrid, play: inTurn(accepts, acks, running)},
		{Name: "hybrid: leaves with STATE", Mode: wire.ModeHybrid, play: inTurn(accepts, receives, leaves)},
		{Name: "hybrid: requests outside RAM", Mode: wire.ModeHybrid, Gone: true, play: inTurn(accepts, runs, requests(1<<51))},
		{Name: "hybrid: runs twice", Mode: wire.ModeHybrid, Gone: true, play: inTurn(accepts, runs, running, hangsUp)},

		{Name: "local: leaves with the memory", Mode: wire.ModeLocal, play: inTurn(accepts, leaves)},
		{Name: "local: a source's frame", Mode: wire.ModeLocal, play: inTurn(accepts, says(wire.TypeCommit))},
		{Name: "local: ack of a round", Mode: wire.ModeLocal, play: inTurn(accepts, says(wire.TypeRoundAck))},
		{Name: "local: runs before STATE", Mode: wire.ModeLocal, play: inTurn(accepts, running)},
		{Name: "local: complete before STATE", Mode: wire.ModeLocal, play: inTurn(accepts, complete)},
		{Name: "local: leaves with STATE", Mode: wire.ModeLocal, play: inTurn(accepts, receives, leaves)},
	}, badCheckpoints()...)
}
