package bench

import (
	"context"
	"errors"
	"time"

	"github.com/fineline-vmm/fineline/images/dirtycheck"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm"
)

const localPages = 8192

// localFaultUS are whole cycles of a vCPU that passes over missing pages which this process fills at once with what they
// hold already: fault, exit, wake-up of Go, fill, and the way back. A post-copy adds the network to it. In microseconds.
// It runs a machine in this process (see Exits).
func localFaultUS(ctx context.Context) (_ []float64, err error) {
	m, err := trackedMachine(ctx, localPages)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.Pause(); err != nil {
		return nil, err
	}
	d, err := missing(m)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := m.Resume(); err != nil {
		return nil, err
	}
	return fillAll(ctx, d)
}

// missing makes the pages missing that the guest writes.
func missing(m *vmm.Machine) (*memory.Demand, error) {
	s, err := dirtycheck.ReadState(m.Memory())
	if err != nil {
		return nil, err
	}
	absent := m.Memory().NewPageSet()
	for page := range s.Params.Pages {
		absent.Add(s.Params.Base + memory.GPA(page*memory.PageSize))
	}
	return m.Memory().Demand(absent)
}

func fillAll(ctx context.Context, d *memory.Demand) (us []float64, err error) {
	var last time.Time
	for d.Len() > 0 {
		gpa, err := d.Next(ctx)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		if !last.IsZero() {
			us = append(us, microseconds(now.Sub(last)))
		}
		last = now
		if _, err := d.Fill(gpa, func([]byte) error { return nil }); err != nil {
			return nil, err
		}
	}
	return us, nil
}
