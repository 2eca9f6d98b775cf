package hostile

import (
	"context"
	"net"
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
	play func(d *defence) error
}

// defence is a destination on its connections, after ACCEPT.
type defence struct {
	main, fault *peer
	hello       wire.Hello
	more        chan *peer // later connections, greeted
	description []byte
}

// Serve plays the destination to the source that comes, until ctx ends; then it closes ln.
func (d Destination) Serve(ctx context.Context, ln net.Listener) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	def := &defence{more: make(chan *peer, wire.MaxStreams)}
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
	<-ctx.Done()
	return def.description, nil
}

// accept greets all that come.
func (d *defence) accept(ctx context.Context, ln net.Listener) {
	defer close(d.more)
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
		select {
		case d.more <- p:
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

// runs receives everything up to STATE and says that the guest runs. The last of the streams is for faults.
func runs(d *defence) error {
	for {
		f, err := d.main.r.Next(anything)
		if err != nil {
			return err
		}
		if f.Type == wire.TypeState {
			break
		}
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

func each(steps ...func(*defence) error) func(*defence) error {
	return func(d *defence) error {
		for _, step := range steps {
			if err := step(d); err != nil {
				return err
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
	return []Destination{
		{Name: "looks and refuses", Mode: wire.ModePrecopy, play: refuse},
		{Name: "ready before STATE", Mode: wire.ModePrecopy, play: each(accepts, says(wire.TypeReady))},
		{Name: "runs before STATE", Mode: wire.ModePrecopy, play: each(accepts, running)},
		{Name: "complete before STATE", Mode: wire.ModePostcopy, play: each(accepts, complete)},
		{Name: "a source's frame", Mode: wire.ModePrecopy, play: each(accepts, says(wire.TypeCommit))},
		{Name: "acks without rounds", Mode: wire.ModePrecopy, play: each(accepts, says(wire.TypeRoundAck), says(wire.TypeRoundAck), says(wire.TypeRoundAck))},
		{Name: "requests outside RAM", Mode: wire.ModePostcopy, Gone: true, play: each(accepts, runs, requests(1<<51))},
		{Name: "flood of requests", Mode: wire.ModePostcopy, Gone: true, play: each(accepts, runs, requests(memory.PageSize))},
		{Name: "runs twice", Mode: wire.ModePostcopy, Gone: true, play: each(accepts, runs, running)},
		{Name: "complete too early", Mode: wire.ModePostcopy, Gone: true, play: each(accepts, runs, complete)},
	}
}
