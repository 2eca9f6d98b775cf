package coherence

// Device is a System driven to quiescence: each call returns when nothing is
// in flight any more. So all accesses have one order, in which each is
// complete before the next begins. It is not safe for concurrent use.
//
// Effects that a call returns are valid until the next call.
type Device struct{ system *System }

// New returns a device with empty caches and no regions.
func New(c Config) (*Device, error) {
	s, err := NewSystem(c)
	if err != nil {
		return nil, err
	}
	return &Device{s}, nil
}

// settle ends a call that began with err.
func (d *Device) settle(err error) ([]Effect, error) {
	if err == nil {
		err = d.system.Settle()
	}
	if err != nil {
		return nil, err
	}
	return d.system.effects, nil
}

// fresh drops the effects of the call before.
func (d *Device) fresh() *System {
	d.system.effects = d.system.effects[:0]
	return d.system
}

// Load performs a load of cache n's processor. The effects are the write-backs
// that it caused, and AccessDone.
func (d *Device) Load(n Node, line Line) ([]Effect, error) {
	return d.settle(d.fresh().Access(n, Load, line))
}

// Store performs a store of cache n's processor, with effects as of Load.
func (d *Device) Store(n Node, line Line) ([]Effect, error) {
	return d.settle(d.fresh().Access(n, Store, line))
}

// Evict makes cache n give up a line, if it holds it.
func (d *Device) Evict(n Node, line Line) ([]Effect, error) {
	return d.settle(d.fresh().Evict(n, line))
}

// IORead performs an uncached read of a line.
func (d *Device) IORead(line Line) ([]Effect, error) { return d.settle(d.fresh().IORead(line)) }

// IOWrite performs an uncached write of a line, such as a store of the VMM.
func (d *Device) IOWrite(line Line) ([]Effect, error) { return d.settle(d.fresh().IOWrite(line)) }

// Tick performs a share of scanning.
func (d *Device) Tick() ([]Effect, error) { return d.settle(d.fresh().Tick()) }

// Flush has all written lines come home.
func (d *Device) Flush() ([]Effect, error) { return d.settle(d.fresh().Flush()) }

// AddRegion is System.AddRegion.
func (d *Device) AddRegion(id RegionID, ranges ...Range) error {
	return d.system.AddRegion(id, ranges...)
}

// RemoveRegion is System.RemoveRegion.
func (d *Device) RemoveRegion(id RegionID) error { return d.system.RemoveRegion(id) }

// StartRegion is System.StartRegion.
func (d *Device) StartRegion(id RegionID) error { return d.system.StartRegion(id) }

// StopRegion ends tracking; all that was stored before is pending then.
func (d *Device) StopRegion(id RegionID) ([]Effect, error) {
	return d.settle(d.fresh().StopRegion(id))
}

// Harvest collects the lines of a region written since the harvest before, in
// rising order, up to limit pages if it is not zero; more says whether it left
// some. Without snoop it misses lines that are only written in a cache. The
// pages are the caller's.
func (d *Device) Harvest(id RegionID, snoop bool, limit int) (pages []PageMask, more bool, err error) {
	effects, err := d.settle(d.fresh().Harvest(id, snoop, limit))
	if err != nil {
		return nil, false, err
	}
	done := effects[len(effects)-1] // write-backs come before it
	return done.Pages, done.More, nil
}

// Stats returns the counters.
func (d *Device) Stats() Stats { return d.system.Stats() }

// State flushes, and returns the saved form. The device may go on afterwards.
func (d *Device) State() (State, error) {
	if _, err := d.Flush(); err != nil {
		return State{}, err
	}
	return d.system.State()
}

// Restore is System.Restore.
func (d *Device) Restore(saved State) error { return d.system.Restore(saved) }
