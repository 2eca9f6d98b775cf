package fpga

import (
	"context"
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

// wakeUp tells the worker that there may be work.
func (d *Device) wakeUp() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// work is the goroutine that executes commands, one a turn.
func (d *Device) work() {
	defer close(d.done)
	var arrives <-chan struct{} // guest memory that the next step needs; nil: none
	for {
		select {
		case <-d.quit:
			return
		case <-d.wake:
		case <-arrives:
		}
		for more := true; more; {
			select {
			case <-d.quit:
				return
			case d.turn <- struct{}{}:
			}
			more, arrives = d.step()
			<-d.turn
		}
	}
}

// step closes what a reset left and executes one command. It reports whether there was one. Where guest memory is
// missing that it needs, it returns what is closed when there is reason to try again. Preconditions: the turn is held.
func (d *Device) step() (more bool, arrives <-chan struct{}) {
	d.sweep()
	j, ok := d.begin()
	if !ok {
		return false, nil
	}
	defer d.end()
	if j.held == nil {
		if j.held, arrives = d.run(j); arrives != nil {
			return false, arrives
		}
	}
	if j.held == nil {
		return true, nil
	}
	arrives = d.put(j.epoch, j.held)
	return arrives == nil, arrives
}

// begin returns a job when there is one. A command is begun only when there is room for its completion; CPL_TAKEN
// does not go back, so the room stays.
func (d *Device) begin() (j job, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &d.regs
	if !d.reachable(d.epoch) || len(d.stale) > 0 {
		return job{}, false
	}
	if d.held == nil && (r.doorbell == r.cmdTaken || r.cplPut-r.cplTaken == r.cplEntries) {
		return job{}, false
	}
	d.busy = true
	at := r.cmdRing + uint64(r.cmdTaken%r.cmdEntries)*commandBytes
	return job{epoch: d.epoch, held: d.held, at: memory.GPA(at)}, true
}

func (d *Device) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy, d.dropping = false, false
}

// reachable says whether a step of the epoch may still access guest memory; callers hold mu.
func (d *Device) reachable(epoch uint64) bool {
	return epoch == d.epoch && d.regs.running() && d.BusMaster()
}

// mayAccess is reachable for callers without mu. A transfer that it has admitted ends, whatever the
// guest does meanwhile: as if it had been on its way.
func (d *Device) mayAccess(epoch uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reachable(epoch)
}

// sweep closes the contexts that resets left. Preconditions: the turn is held.
func (d *Device) sweep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.stale) > 0 {
		e := d.stale[0]
		d.mu.Unlock()
		d.closeEntry(e)
		d.mu.Lock()
		d.stale = d.stale[1:] // only now: until then STATUS says that it lives
	}
}

func (d *Device) closeEntry(e *entry) {
	if err := e.Close(); err != nil {
		d.log(fmt.Errorf("fpga: close a context: %w", err))
	}
}

// Pause lets the running command finish and holds the worker until Resume. When ctx ends first, the
// error is ctx's and the device goes on as before. Pause of a paused device does nothing.
func (d *Device) Pause(ctx context.Context) error {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	_, err := d.pause(ctx)
	return err
}

// pause reports whether it was this call that paused; callers hold ctl.
func (d *Device) pause(ctx context.Context) (bool, error) {
	if d.paused {
		return false, nil
	}
	select {
	case <-ctx.Done():
		return false, fmt.Errorf("fpga: a command is running: %w", ctx.Err())
	case d.turn <- struct{}{}:
	}
	d.paused = true
	return true, nil
}

// Resume ends a Pause, and starts a device after Restore.
func (d *Device) Resume() {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	d.resume()
}

// resume: callers hold ctl.
func (d *Device) resume() {
	if !d.paused {
		return
	}
	d.paused = false
	<-d.turn
	d.wakeUp()
}

// Reset is the machine's reset: the device is as New made it. It waits for the running
// command to drop its work, and closes all contexts. A paused device stays paused.
func (d *Device) Reset() {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	d.clear() // first, so that a command that runs has less to do
	mine, _ := d.pause(context.Background())
	d.sweep()
	d.Config.Reset()
	if mine {
		d.resume()
	}
}

// clear forgets all registers and makes all contexts stale.
func (d *Device) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.regs = registers{}
	d.drop()
}

// Close waits for the running command to drop its work, ends the worker and closes all contexts.
// A guest that goes on sees a device that does nothing. A second Close does nothing.
func (d *Device) Close() {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	d.clear()
	close(d.quit)
	<-d.done
	d.sweep() // nobody else takes the turn: the worker has ended, and ctl is held
}
