package serial

import "context"

// receive handles a read of RBR; callers hold mu.
func (d *Device) receive() byte {
	if len(d.rx) == 0 {
		return 0
	}
	b := d.rx[0]
	d.rx = d.rx[:copy(d.rx, d.rx[1:])] // 16 bytes at most: cheaper than a ring is simple
	d.space.fire()
	d.updateLine()
	return b
}

// rxRoom is how many bytes the receiver can take; callers hold mu.
func (d *Device) rxRoom() int {
	if d.fcr&fcrEnable == 0 {
		return 1 - len(d.rx)
	}
	return fifoBytes - len(d.rx)
}

// loop receives a byte that the guest sent in loopback; callers hold mu.
func (d *Device) loop(b byte) {
	switch {
	case d.rxRoom() > 0:
		d.rx = append(d.rx, b)
		return
	case d.fcr&fcrEnable == 0:
		d.rx[0] = b // without FIFO the new byte replaces the old one, else it is lost
	}
	d.overrun = true
	d.metrics.RXOverruns++
}

// Feed gives the guest as much of p as the receiver takes now and returns how much
// that is. It takes nothing in loopback, while paused, and after Close.
func (d *Device) Feed(p []byte) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.feed(p)
}

func (d *Device) feed(p []byte) (n int) {
	if d.paused || d.closed || d.mcr&mcrLoop != 0 {
		return 0
	}
	n = min(len(p), d.rxRoom())
	d.rx = append(d.rx, p[:n]...)
	d.metrics.RXBytes += uint64(n)
	d.updateLine()
	return n
}

// FeedContext gives the guest all of p at the guest's pace. It returns how much
// was taken, with ErrClosed or the cause of ctx when that is not all.
func (d *Device) FeedContext(ctx context.Context, p []byte) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		n += d.feed(p[n:])
		switch {
		case n == len(p):
			return n, nil
		case d.closed:
			return n, ErrClosed
		}
		if err := d.space.wait(ctx, &d.mu); err != nil {
			return n, err
		}
	}
}
