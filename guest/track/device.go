package track

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/fineline-vmm/fineline/guest/track/abi"
	"github.com/fineline-vmm/fineline/guest/track/dma"
	"github.com/fineline-vmm/fineline/guest/track/driver"
	"github.com/fineline-vmm/fineline/guest/track/follow"
	"github.com/fineline-vmm/fineline/guest/track/pci"
	"github.com/fineline-vmm/fineline/guest/track/procmem"
)

// AddressSpace is one process's memory. It is for one goroutine.
type AddressSpace interface {
	follow.Table
	Mappings() ([]procmem.Mapping, error)
	Close() error
}

// Device is the device in the hands of this process: no other may use it.
type Device struct {
	driver *driver.Driver
	spaces func(pid int) (AddressSpace, error)
	close  func() error
}

// Open takes the machine's device, which needs root. Its error wraps pci.ErrNotFound where there is none and
// pci.ErrInUse when another process, such as the daemon, has it.
func Open() (*Device, error) {
	dir, err := pci.Find(pci.Functions, abi.VendorID, abi.DeviceID)
	if err != nil {
		return nil, err
	}
	memory, err := dma.Alloc(driver.DMAPages)
	if err != nil {
		return nil, err
	}
	function, err := pci.Open(dir, abi.BARBytes)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), memory.Close())
	}
	d, err := driver.Open(function, memory.Pages)
	if err != nil {
		// Bus mastering goes first, so that the device cannot write to the memory that goes second.
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), function.Close(), memory.Close())
	}
	device := NewDevice(d, openSpace)
	device.close = func() error { return errors.Join(function.Close(), memory.Close()) }
	return device, nil
}

// NewDevice makes a Device of a driver and a way to open address spaces.
func NewDevice(d *driver.Driver, spaces func(pid int) (AddressSpace, error)) *Device {
	return &Device{driver: d, spaces: spaces, close: func() error { return nil }}
}

// Close resets the device: all of its sessions have ended. If the reset fails, the memory that the device
// may write to is kept until the process ends.
func (d *Device) Close() error {
	if err := d.driver.Close(); err != nil {
		return err
	}
	return d.close()
}

// Self tracks this process.
func (d *Device) Self(o Options) (Session, error) {
	s, err := d.Process(os.Getpid(), o)
	if err != nil {
		return nil, err
	}
	return &lockedSession{Session: s}, nil
}

// Process tracks a process.
func (d *Device) Process(pid int, o Options) (Session, error) {
	space, err := d.spaces(pid)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	s, err := d.open(space, o)
	if err != nil {
		return nil, errors.Join(err, space.Close())
	}
	return s, nil
}

func (d *Device) open(space AddressSpace, o Options) (*deviceSession, error) {
	if o.Check != nil {
		if err := o.Check(); err != nil {
			return nil, err
		}
	}
	flags := uint32(o.Mode)
	if o.CountBytes {
		flags |= abi.CreateCountBytes
	}
	context, err := d.driver.Create(flags)
	if err != nil {
		return nil, err
	}
	return &deviceSession{
		space: space, context: context, choice: o.Follow,
		follower: follow.NewFollower(space, context),
	}, nil
}

// procSpace is an AddressSpace of /proc.
type procSpace struct {
	*procmem.Table
	maps *procmem.Maps
}

func openSpace(pid int) (AddressSpace, error) {
	name := strconv.Itoa(pid)
	table, err := procmem.OpenTable(name)
	if err != nil {
		return nil, err
	}
	maps, err := procmem.OpenMaps(name)
	if err != nil {
		return nil, errors.Join(err, table.Close())
	}
	return procSpace{table, maps}, nil
}

func (s procSpace) Mappings() ([]procmem.Mapping, error) { return s.maps.Read() }

func (s procSpace) Close() error { return errors.Join(s.Table.Close(), s.maps.Close()) }
