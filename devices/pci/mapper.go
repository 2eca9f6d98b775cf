package pci

import (
	"sync"

	"github.com/fineline-vmm/fineline/devices"
)

// mapper keeps the BARs of all functions on the buses where their guests want them.
type mapper struct {
	mmio, pio *devices.Bus

	mu        sync.Mutex // held before any Config.mu
	bars      []*bar
	conflicts uint64
}

func (m *mapper) add(bars []*bar) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bars = append(m.bars, bars...)
}

func (m *mapper) conflictCount() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conflicts
}

// refresh follows c's registers. It looks at them under m.mu, so that of two vCPUs
// that write, the last one to come here maps what both wrote.
// Preconditions: c.mu is not held, and the caller is not inside a BAR's device.
func (m *mapper) refresh(c *Config) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.bars {
		if b.owner != c {
			continue
		}
		b.want, b.wanted = c.placement(b)
		if b.mapped && (!b.wanted || b.want != b.base) {
			// The claim is there, since only this mapper makes and removes it.
			_ = m.bus(b).Remove(b.base)
			b.mapped = false
		}
	}
	// All functions' BARs: one of them may have waited for the place.
	for _, b := range m.bars {
		if !b.wanted || b.mapped {
			continue
		}
		if err := m.bus(b).Insert(b.want, b.SizeBytes, b.Device); err != nil {
			m.conflicts++ // what the guest chose is taken: it reads ones there, or the other device
			continue
		}
		b.base, b.mapped = b.want, true
	}
}

func (m *mapper) bus(b *bar) *devices.Bus {
	if b.Kind == IO {
		return m.pio
	}
	return m.mmio
}
