package vmm

import (
	"errors"
	"fmt"
	"io"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
)

// ErrConfig is wrapped by every refusal of a Config.
var ErrConfig = errors.New("machine configuration")

const (
	// MaxCPUs keeps APIC ids below 255, the limit without x2APIC interrupt remapping.
	MaxCPUs = 254
	// minMemoryBytes holds the legacy area and a kernel.
	minMemoryBytes = 2 << 20
	// dirtyRingBytes is one vCPU's ring: as many entries of 16 bytes as KVM allows. A ring that is full is emptied, and to empty it
	// protects its pages again. So a guest that writes more pages than it holds between two Collects takes a fault for nearly every store: with
	// 16384 hot pages and rings of 4096 entries it was 98 times slower, and with these it is 1.1 times.
	dirtyRingBytes = 65536 * 16
)

// Config is what a machine is built from.
type Config struct {
	CPUs        int
	MemoryBytes uint64 // a multiple of the page size
	HugePages   bool
	CPUModel    CPUModel
	Boot        BootFiles
	// DirtyRing collects dirty pages by KVM's ring instead of its bitmap.
	DirtyRing bool
	// LineBaseline and LineBudgetBytes are what tracking by the line compares with, and the most memory
	// that may take; 0: enough for all of the guest's.
	LineBaseline    track.Baseline
	LineBudgetBytes uint64
	// HomedMissing has memory that is missing when a machine arrives come by the line: the reference, slow.
	HomedMissing bool
	// NoReboot ends the run where the guest asks for a reset.
	NoReboot bool
	// SerialOut receives the guest's serial output; nil discards it. Writes to
	// it may block: the guest then sees a port that is not ready.
	SerialOut io.Writer
	// Accept refuses a machine of the given shape that would arrive; nil takes any.
	Accept func(Config) error
}

// Validate checks what can be judged without the host.
func (c *Config) Validate() error {
	if c.CPUs < 1 || c.CPUs > MaxCPUs {
		return fmt.Errorf("%w: %d vCPUs: choose 1 to %d", ErrConfig, c.CPUs, MaxCPUs)
	}
	if c.MemoryBytes < minMemoryBytes {
		return fmt.Errorf("%w: %d bytes of memory: give at least %d MiB", ErrConfig, c.MemoryBytes, minMemoryBytes>>20)
	}
	if c.MemoryBytes%memory.PageSize != 0 {
		return fmt.Errorf("%w: %d bytes of memory is not a multiple of the page size %d", ErrConfig, c.MemoryBytes, memory.PageSize)
	}
	return errors.Join(c.CPUModel.validate(), c.Boot.validate())
}

func (c *Config) dirtyRingBytes() uint32 {
	if c.DirtyRing {
		return dirtyRingBytes
	}
	return 0
}
