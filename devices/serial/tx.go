package serial

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// writeBytes bounds one write to the host, so that Pause waits for little.
const writeBytes = 4 << 10

// deadliner is what network connections and pipes have to end a write early.
type deadliner interface {
	SetWriteDeadline(t time.Time) error
}

// thre reports whether a driver may fill the whole transmit FIFO: on THRE it writes
// 16 bytes without another look.
func (d *Device) thre() bool { return d.tx.room() >= fifoBytes }

// transmit handles a byte written to THR; callers hold mu.
func (d *Device) transmit(b byte) {
	d.threPending = false
	d.updateLine()
	switch {
	case d.mcr&mcrLoop != 0:
		d.loop(b)
	case d.tx.push(b):
		d.work.fire()
	default:
		d.metrics.TXDropped++
	}
	d.threPending = d.thre()
	d.updateLine()
}

// drain is the goroutine that writes the queue to the host.
func (d *Device) drain() {
	defer close(d.drained)
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		for !d.closed && (d.paused || d.tx.size == 0) {
			_ = d.work.wait(context.Background(), &d.mu) // cannot fail: no deadline
		}
		if d.closed {
			return
		}
		chunk := d.tx.front(writeBytes)
		d.writing = true
		d.mu.Unlock()
		n, err := d.out.Write(chunk)
		d.mu.Lock()
		d.writing = false
		d.wrote(len(chunk), n, err)
		d.restoreDeadline()
	}
}

// wrote accounts for one write of size bytes to the host; callers hold mu.
func (d *Device) wrote(size, n int, err error) {
	n = min(max(n, 0), size)
	d.metrics.TXBytes += uint64(n)
	if d.abandoned {
		d.metrics.TXLost -= uint64(n)
	}
	if n < size && err == nil {
		err = io.ErrShortWrite // else a writer that takes nothing would spin
	}
	gone := n
	if err != nil && !(d.deadline && errors.Is(err, os.ErrDeadlineExceeded)) {
		d.metrics.TXErrors++
		if !d.abandoned {
			d.metrics.TXLost += uint64(size - n)
		}
		if d.txErr == nil {
			d.txErr = err
		}
		gone = size
	}
	had := d.thre()
	d.tx.drop(gone)
	if !had && d.thre() && !d.closed { // closed: the line may be gone, its owner does not wait for a stuck write
		d.threPending = true
		d.updateLine()
	}
	d.idle.fire()
}

// cutWrite makes a write that runs end now where the writer can; callers hold mu.
func (d *Device) cutWrite() {
	if w, ok := d.out.(deadliner); ok && d.writing {
		// An error means that this file has no deadlines: then wait as without.
		d.deadline = w.SetWriteDeadline(time.Unix(1, 0)) == nil
	}
}

// restoreDeadline undoes cutWrite; callers hold mu.
func (d *Device) restoreDeadline() {
	if !d.deadline {
		return
	}
	d.deadline = false
	// A failure shows in the write that follows.
	_ = d.out.(deadliner).SetWriteDeadline(time.Time{})
}

// Pause stops output and input and waits for the write that runs now. If the host
// blocks that write and it has no deadlines, Pause waits for the host.
func (d *Device) Pause() {
	_ = d.PauseContext(context.Background()) // cannot fail: no deadline
}

// PauseContext is Pause that gives up, and resumes, when ctx ends while a write runs that can't be cut.
func (d *Device) PauseContext(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = true
	d.cutWrite()
	if d.deadline { // the write ends by itself, however late its goroutine runs on a busy host
		ctx = context.WithoutCancel(ctx)
	}
	for d.writing {
		if err := d.idle.wait(ctx, &d.mu); err != nil {
			d.resume()
			return err
		}
	}
	return nil
}

// Resume ends a Pause, and starts a device after Restore.
func (d *Device) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resume()
}

func (d *Device) resume() {
	d.paused = false
	d.work.fire()
	d.space.fire()
}

// Abandon counts what Flush could not get rid of as lost. The guest writes no more.
func (d *Device) Abandon() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.abandoned || d.tx.size == 0 {
		return
	}
	d.abandoned = true
	d.metrics.TXLost += uint64(d.tx.size)
	if d.txErr == nil {
		d.txErr = ErrUnread
	}
}

// Flush waits until the host took all output, ErrPaused or ErrClosed when that
// cannot happen, or ctx ends.
func (d *Device) Flush(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.tx.size > 0 {
		switch {
		case d.closed:
			return ErrClosed
		case d.paused:
			return ErrPaused
		}
		if err := d.idle.wait(ctx, &d.mu); err != nil {
			return err
		}
	}
	return nil
}
