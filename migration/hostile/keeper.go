package hostile

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Keeper is one way to be wrong as a source that takes checkpoints of a guest that has moved.
type Keeper struct {
	Name string
	play func(p *peer) error
}

// Attack takes the place of an honest source on the connection for checkpoints: hello names that one. It returns when the
// destination has hung up, or ctx ends, and its error says only how.
func (k Keeper) Attack(ctx context.Context, dial Dial, hello wire.Hello) error {
	a := &attack{ctx: ctx, dial: dial}
	hello.Purpose, hello.Build = wire.PurposeReverse, "hostile"
	p, err := a.open(hello)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := k.play(p); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, p.Conn)
	return err
}

// Keepers lists all.
func Keepers() []Keeper {
	ack := func(number uint64) func(*peer) error {
		return func(p *peer) error { return p.Message(wire.TypeCheckpointAck, wire.Checkpoint{Number: number}) }
	}
	says := func(t wire.Type, payload []byte) func(*peer) error {
		return func(p *peer) error { return p.Bytes(t, payload) }
	}
	page := record(wire.KindData, 1, 1, bytes.Repeat([]byte{0xee}, memory.PageSize))
	return []Keeper{
		{"has a checkpoint of the future", ack(1 << 60)},
		{"sends a page", says(wire.TypePages, page)},
		{"sends a state", says(wire.TypeState, page)},
		{"gives a checkpoint", func(p *peer) error { return p.Message(wire.TypeCheckpoint, wire.Checkpoint{Number: 1}) }},
		{"says that the guest has ended", says(wire.TypeEnded, nil)},
		{"makes noise", func(p *peer) error {
			_, err := p.Conn.Write(page)
			return err
		}},
		{"says nothing", func(*peer) error { return nil }},
		{"takes nothing", func(p *peer) error {
			for end := time.Now().Add(floodFor); time.Now().Before(end); {
				if err := ack(0)(p); err != nil {
					return err
				}
			}
			return p.Close()
		}},
	}
}
