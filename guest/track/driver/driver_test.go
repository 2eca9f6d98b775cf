package driver_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/fineline-vmm/fineline/guest/track/abi"
	"github.com/fineline-vmm/fineline/guest/track/driver"
	"github.com/fineline-vmm/fineline/guest/track/tracktest"
)

func open(t *testing.T) (*tracktest.Machine, *driver.Driver) {
	t.Helper()
	m := tracktest.NewMachine()
	d, err := driver.Open(m, m.DMA(driver.DMAPages))
	if err != nil {
		t.Fatal(err)
	}
	return m, d
}

func create(t *testing.T, d *driver.Driver, flags uint32) *driver.Context {
	t.Helper()
	c, err := d.Create(flags)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestListsAndReportsAreCutIntoPages registers and harvests more than fits into one.
func TestListsAndReportsAreCutIntoPages(t *testing.T) {
	m, d := open(t)
	c := create(t, d, abi.ModeDiff)
	const n = 700
	var ranges []abi.Range
	for range n {
		m.Frame() // a gap, so that ranges stay apart
		ranges = append(ranges, abi.Range{Address: m.Frame() * 4096, Bytes: 4096})
	}
	if err := c.Register(ranges); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for i, r := range ranges {
		m.Store(r.Address/4096, i%64*64, []byte{1})
	}
	got := 0
	err := c.Harvest(func(r abi.Record) {
		if r.Page != ranges[got].Address || r.Lines != 1<<(got%64) {
			t.Fatalf("record %d: %+v", got, r)
		}
		got++
	})
	if err != nil || got != n {
		t.Fatalf("%d records, %v", got, err)
	}
	if err := c.Unregister(ranges[1:]); err != nil || m.Registered() != 1 {
		t.Errorf("%d frames left, %v", m.Registered(), err)
	}
	if err := c.Destroy(); err != nil || m.Contexts() != 0 {
		t.Errorf("%d contexts left, %v", m.Contexts(), err)
	}
}

// TestManyThreads uses more entries than the rings have.
func TestManyThreads(t *testing.T) {
	m, d := open(t)
	var wg sync.WaitGroup
	for range 8 {
		frame := m.Frame()
		wg.Go(func() {
			c, err := d.Create(abi.ModeStores)
			if err == nil {
				err = c.Register([]abi.Range{{Address: frame * 4096, Bytes: 4096}})
			}
			if err == nil {
				err = c.Start()
			}
			for i := 0; i < 100 && err == nil; i++ {
				m.Store(frame, i%64*64, []byte{1})
				n := 0
				err = c.Harvest(func(r abi.Record) {
					if n++; r.Page != frame*4096 || r.Lines != 1<<(i%64) {
						t.Errorf("harvest %d: %+v", i, r)
					}
				})
				if n != 1 {
					t.Errorf("harvest %d: %d records", i, n)
				}
			}
			if err := errors.Join(err, c.Destroy()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestRefusals(t *testing.T) {
	m, d := open(t)
	if _, err := d.Create(99); !errors.Is(err, driver.ErrBadFlags) {
		t.Errorf("mode: %v", err)
	}
	c := create(t, d, abi.ModeDiff)
	if err := c.Harvest(func(abi.Record) {}); !errors.Is(err, driver.ErrState) {
		t.Errorf("harvest before start: %v", err)
	}
	if err := c.Register([]abi.Range{{Address: 1 << 40, Bytes: 4096}}); !errors.Is(err, driver.ErrAddress) {
		t.Errorf("no RAM: %v", err)
	}
	m.MaxContexts = 1
	if _, err := d.Create(abi.ModeDiff); !errors.Is(err, driver.ErrNoSpace) {
		t.Errorf("contexts: %v", err)
	}
	if err := c.Start(); err != nil {
		t.Errorf("after refusals: %v", err)
	}
}

// TestABrokenDeviceIsGivenUp: no answer of a device makes the driver hang or believe it.
func TestABrokenDeviceIsGivenUp(t *testing.T) {
	for name, spoil := range map[string]func(*abi.Completion) bool{
		"silent":           func(*abi.Completion) bool { return false },
		"wrong cookie":     func(c *abi.Completion) bool { c.Cookie++; return true },
		"wrong sequence":   func(c *abi.Completion) bool { c.Sequence += 2; return true },
		"too many records": func(c *abi.Completion) bool { c.Result = 1 << 40; return true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, d := open(t)
				c := create(t, d, abi.ModeDiff)
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				m.Spoil = spoil
				if err := c.Harvest(func(abi.Record) {}); !errors.Is(err, driver.ErrDead) {
					t.Errorf("harvest: %v", err)
				}
				m.Spoil = nil
				m.Commands()
				if err := c.Stop(); !errors.Is(err, driver.ErrDead) || len(m.Commands()) != 0 {
					t.Errorf("the next command: %v", err)
				}
				if err := d.Close(); err != nil || m.Enabled() {
					t.Errorf("close: %v", err)
				}
			})
		})
	}
}

func TestOpen(t *testing.T) {
	m, d := open(t)
	create(t, d, abi.ModeDiff)
	// An owner that was killed leaves contexts behind.
	d2, err := driver.Open(m, m.DMA(driver.DMAPages))
	if err != nil || m.Contexts() != 0 {
		t.Fatalf("%d contexts, %v", m.Contexts(), err)
	}
	if err := d2.Close(); err != nil || m.Enabled() {
		t.Fatal(err)
	}
	if _, err := d2.Create(abi.ModeDiff); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	pages := m.DMA(driver.DMAPages)
	pages[0].Physical += 8
	if _, err := driver.Open(m, pages); err == nil || m.Enabled() {
		t.Errorf("a misaligned ring: %v", err)
	}
	if _, err := driver.Open(other{m}, m.DMA(driver.DMAPages)); !errors.Is(err, driver.ErrNotOurs) {
		t.Errorf("another device: %v", err)
	}
}

// other has a register of another device.
type other struct{ *tracktest.Machine }

func (o other) Load32(offset int) uint32 {
	if offset == abi.RegVersion {
		return abi.Version + 1
	}
	return o.Machine.Load32(offset)
}
