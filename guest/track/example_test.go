package track_test

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/track"
)

// A program copies what it has written since the last time, and no more. It needs the daemon, so this example
// is compiled and not run; the program guest/track/example is a whole one.
func Example() {
	memory, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		fmt.Println(err)
		return
	}
	backup := make([]byte, len(memory))

	system, err := track.Dial(track.DefaultSocket)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer system.Close()
	session, err := system.Self(track.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer session.Close()
	whole := track.RangeOf(memory)
	if err := session.Add(whole); err != nil {
		fmt.Println(err)
		return
	}
	if err := session.Start(); err != nil {
		fmt.Println(err)
		return
	}
	copy(backup, memory)

	memory[123] = 1

	report, err := session.Harvest() // nobody writes until the copy is made
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, page := range report.Pages { // of locked memory none is track.Gone
		for line := range uint64(64) {
			if at := page.Address + line*track.LineBytes - whole.Address; page.Lines>>line&1 != 0 {
				copy(backup[at:at+track.LineBytes], memory[at:])
			}
		}
	}
}
