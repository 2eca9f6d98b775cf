package driver

import (
	"fmt"

	"github.com/fineline-vmm/fineline/guest/track/abi"
)

// Context is one tracker in the device. It is for one goroutine; several contexts of one driver are independent.
type Context struct {
	d  *Driver
	id uint32
}

// Create makes a context. flags are a mode and abi.CreateCountBytes.
func (d *Driver) Create(flags uint32) (*Context, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	cpl, err := d.do(abi.Command{Op: abi.OpCreate, Flags: flags})
	if err != nil {
		return nil, fmt.Errorf("create a context: %w", err)
	}
	return &Context{d: d, id: uint32(cpl.Result)}, nil
}

// Destroy ends the context with all of its ranges.
func (c *Context) Destroy() error { return c.simple(abi.OpDestroy, "destroy the context") }

// Start begins the tracking of what is registered.
func (c *Context) Start() error { return c.simple(abi.OpStart, "start") }

// Stop looks a last time and ends the tracking.
func (c *Context) Stop() error { return c.simple(abi.OpStop, "stop") }

func (c *Context) simple(op abi.Op, name string) error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if _, err := c.d.do(abi.Command{Op: op, Context: c.id}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Register adds ranges. After an error any of them may be registered.
func (c *Context) Register(ranges []abi.Range) error {
	return c.list(abi.OpRegister, "register", ranges)
}

// Unregister takes ranges away. After an error any of them may still be registered.
func (c *Context) Unregister(ranges []abi.Range) error {
	return c.list(abi.OpUnregister, "unregister", ranges)
}

func (c *Context) list(op abi.Op, name string, ranges []abi.Range) error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	for len(ranges) > 0 {
		n := min(len(ranges), listRanges)
		for i, r := range ranges[:n] {
			r.Put(c.d.data.Bytes[i*abi.RangeBytes:])
		}
		_, err := c.d.do(abi.Command{Op: op, Context: c.id, Count: uint32(n), Address: c.d.data.Physical})
		if err != nil {
			return fmt.Errorf("%s %d ranges from %#x: %w", name, n, ranges[0].Address, err)
		}
		ranges = ranges[n:]
	}
	return nil
}

// Harvest calls emit with the record of each page that was written since the last.
func (c *Context) Harvest(emit func(abi.Record)) error {
	for more := true; more; {
		var buf [bufferRecords]abi.Record
		n := 0
		var err error
		if n, more, err = c.harvest(&buf); err != nil {
			return fmt.Errorf("harvest: %w", err)
		}
		for _, r := range buf[:n] {
			emit(r)
		}
	}
	return nil
}

// harvest is one command. Other contexts' commands get between those of a long harvest.
func (c *Context) harvest(buf *[bufferRecords]abi.Record) (n int, more bool, err error) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	cpl, err := c.d.do(abi.Command{Op: abi.OpHarvest, Context: c.id, Count: bufferRecords, Address: c.d.data.Physical})
	if err != nil {
		return 0, false, err
	}
	if cpl.Result > bufferRecords {
		c.d.err = fmt.Errorf("%w: it claims %d records in a buffer of %d", ErrDead, cpl.Result, bufferRecords)
		return 0, false, c.d.err
	}
	for i := range int(cpl.Result) {
		buf[i] = abi.GetRecord(c.d.data.Bytes[i*abi.RecordBytes:])
	}
	return int(cpl.Result), cpl.Flags&abi.CompletionMore != 0, nil
}
