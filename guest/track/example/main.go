// Command example tracks its own memory: it writes some words and prints the lines that were written. Run it in a guest
// of Fineline, as any user when `fineline-guest serve` runs, else as root.
package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/track"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	system, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, system.Close()) }()
	session, err := system.Self(track.Options{CountBytes: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()

	// Pages of its own, so that nothing else is in them.
	memory, err := unix.Mmap(-1, 0, 16*track.PageBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	if err := session.Add(track.RangeOf(memory)); err != nil {
		return err
	}
	if err := session.Start(); err != nil {
		return err
	}
	memory[0] = 1                   // page 0, line 0
	memory[5*64] = 2                // page 0, line 5
	memory[3*track.PageBytes-1] = 3 // page 2, line 63
	memory[4*track.PageBytes] = 0   // as it was: no change in mode Diff

	report, err := session.Harvest()
	if err != nil {
		return err
	}
	base := track.RangeOf(memory).Address
	for _, p := range report.Pages {
		fmt.Printf("page %d: lines %016x, %d bytes changed, exact %v\n", (p.Address-base)/track.PageBytes, p.Lines, p.ChangedBytes, p.Exact())
	}
	return nil
}

// open asks the daemon if there is one.
func open() (track.System, error) {
	client, err := track.Dial(track.DefaultSocket)
	if err == nil {
		return client, nil
	}
	device, err2 := track.Open()
	if err2 != nil {
		return nil, errors.Join(err, err2)
	}
	return device, nil
}
