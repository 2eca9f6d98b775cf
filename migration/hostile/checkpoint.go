package hostile

import (
	"bytes"
	"io"
	"net"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// onReverse is a move on a connection for checkpoints, of the checkpoint with this number.
type onReverse func(d *defence, p *peer, number uint64) error

// hangUpTime is more than any patience that a source has with a connection for checkpoints.
const hangUpTime = 30 * time.Second

// checkpoints makes the moves on so many connections for checkpoints, each time until the source hangs up. What
// comes after a whole checkpoint is of the next one.
func checkpoints(connections int, moves ...onReverse) func(*defence) error {
	return func(d *defence) error {
		for range connections {
			p := <-d.reverse
			if p == nil {
				return net.ErrClosed
			}
			f, err := p.r.Next(wire.Of(wire.TypeCheckpointAck))
			if err != nil {
				return err
			}
			has, err := wire.Decode[wire.Checkpoint](f)
			if err != nil {
				return err
			}
			play(d, p, has.Number+1, moves)
		}
		return nil
	}
}

// play ends with the connection.
func play(d *defence, p *peer, number uint64, moves []onReverse) {
	for _, move := range moves {
		if move(d, p, number) != nil {
			break // it has hung up
		}
	}
	_ = p.SetReadDeadline(time.Now().Add(hangUpTime))
	_, _ = io.Copy(io.Discard, p.Conn)
	_ = p.Close()
}

func begins(_ *defence, p *peer, number uint64) error {
	return p.Message(wire.TypeCheckpoint, wire.Checkpoint{Number: number})
}

// holds sends pages.
func holds(records ...[]byte) onReverse {
	return func(_ *defence, p *peer, _ uint64) error { return p.Bytes(wire.TypePages, bytes.Join(records, nil)) }
}

// tells sends the state that the guest came with.
func tells(d *defence, p *peer, _ uint64) error { return p.Bytes(wire.TypeState, d.state) }

func ends(content, zeros uint64) onReverse {
	return func(_ *defence, p *peer, number uint64) error {
		return p.Message(wire.TypeCheckpointEnd, wire.CheckpointEnd{Number: number, Pages: content, ZeroPages: zeros})
	}
}

// tears closes the connection.
func tears(_ *defence, p *peer, _ uint64) error { return p.Close() }

// whole gives so many right checkpoints, the first of them with the number; nothing was written in any.
func whole(many uint64) onReverse {
	return func(d *defence, p *peer, number uint64) error {
		for n := range many {
			for _, move := range []onReverse{begins, tells, ends(0, 0)} {
				if err := move(d, p, number+n); err != nil {
					return err
				}
			}
			if _, err := p.r.Next(wire.Of(wire.TypeCheckpointAck)); err != nil {
				return err
			}
		}
		return nil
	}
}

// second makes the move for the checkpoint after the one with the number.
func second(move onReverse) onReverse {
	return func(d *defence, p *peer, number uint64) error { return move(d, p, number+1) }
}

// fills sends every page of so many bytes of RAM.
func fills(sizeBytes uint64) onReverse {
	const inFrame = 128
	content := bytes.Repeat([]byte{0xee}, inFrame*memory.PageSize)
	return func(_ *defence, p *peer, _ uint64) error {
		for first := uint64(0); first < sizeBytes/memory.PageSize; first += inFrame {
			if err := p.Bytes(wire.TypePages, record(wire.KindData, first, inFrame, content)); err != nil {
				return err
			}
		}
		return nil
	}
}

// nothings sends frames without a page.
func nothings(_ *defence, p *peer, _ uint64) error {
	for end := time.Now().Add(floodFor); time.Now().Before(end); {
		if err := p.Bytes(wire.TypePages, nil); err != nil {
			return err
		}
	}
	return p.Close()
}

// badCheckpoints are the destinations that are wrong in their checkpoints alone. Each comes to a source that is kept, which has
// the checkpoint that the entry says in the end.
func badCheckpoints() []Destination {
	const again = 3 // connections: what a source would do at a second one, too
	page := bytes.Repeat([]byte{0xee}, memory.PageSize)
	one := record(wire.KindData, 1, 1, page)
	keeper := func(name string, has uint64, deeds func(*defence) error) Destination {
		return Destination{Name: name, Mode: wire.ModePrecopy, Keep: true, Checkpoint: has, play: inTurn(accepts, runs, deeds)}
	}
	rubbish := keeper("checkpoint: a state of rubbish", 1, checkpoints(1, begins, func(_ *defence, p *peer, _ uint64) error {
		return p.Bytes(wire.TypeState, page)
	}, ends(0, 0), tears))
	rubbish.Lost = true
	return []Destination{
		rubbish,
		keeper("checkpoint: torn after its pages", 0, checkpoints(again, begins, fills(MemoryBytes), tears)),
		keeper("checkpoint: torn after its state", 0, checkpoints(again, begins, fills(MemoryBytes), tells, tears)),
		keeper("checkpoint: a torn one after a whole one", again, checkpoints(again, whole(1), second(begins), fills(MemoryBytes), tells, tears)),
		keeper("checkpoint: page without an opening", 0, checkpoints(again, holds(one))),
		keeper("checkpoint: page outside RAM", 0, checkpoints(again, begins, holds(record(wire.KindData, 1<<40, 1, page)))),
		keeper("checkpoint: zeros outside RAM", 0, checkpoints(again, begins, holds(record(wire.KindZero, 0, 1<<32-1, nil)))),
		keeper("checkpoint: lines outside RAM", 0, checkpoints(again, begins,
			holds(record(wire.KindLines, 1<<40, 1, append([]byte{0, 0x40}, page[:64]...))))),
		keeper("checkpoint: page cut short", 0, checkpoints(again, begins, holds(one[:100]))),
		keeper("checkpoint: page twice", 0, checkpoints(again, begins, holds(one), holds(one))),
		keeper("checkpoint: miscounted", 0, checkpoints(again, begins, holds(one), tells, ends(2, 0))),
		keeper("checkpoint: no state", 0, checkpoints(again, begins, holds(one), ends(1, 0))),
		keeper("checkpoint: two states", 0, checkpoints(again, begins, tells, tells)),
		keeper("checkpoint: pages without end", 0, checkpoints(again, begins, fills(1<<40))),
		keeper("checkpoint: frames without pages", 0, checkpoints(1, begins, nothings)),
		keeper("checkpoint: many at once", 500, checkpoints(1, whole(500), tears)),
	}
}
