package vmm

import (
	"errors"

	"github.com/fineline-vmm/fineline/memory"
)

// NewOnMemory is NewFromDescription on RAM that lives already: files are what the source's memory.Guest has
// lent, by region. It takes them, also when it fails. The source may still run the guest, so nothing here
// stores to the RAM before Resume: building a machine, Restore and Close do not. (KVM would at the wall clock
// MSRs alone, which Restore leaves out.)
func NewOnMemory(sealed []byte, local Config, files []int) (*Machine, error) {
	taken := false
	m, err := newFromDescription(sealed, local, func(cfg Config) (*memory.Guest, error) {
		taken = true
		return memory.NewFromFiles(ramRegions(cfg.MemoryBytes), files, memory.Options{HugePages: cfg.HugePages})
	})
	if !taken {
		err = errors.Join(err, memory.CloseFiles(files))
	}
	return m, err
}

// freshMemory is the RAM of a machine that nobody had before.
func freshMemory(cfg Config) (*memory.Guest, error) {
	return memory.New(ramRegions(cfg.MemoryBytes), memory.Options{HugePages: cfg.HugePages})
}
