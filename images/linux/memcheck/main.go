package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	mib := flag.Int("mib", 8, "MiB that are rewritten all the time")
	rest := flag.Duration("rest", 0, "pause of each worker between rounds")
	command := flag.String("job", "", "a shell command that is run all the time and must always print the same")
	warnings := flag.Bool("warnings", false, "only print the kernel's warnings")
	flag.Parse()
	if *mib < 1 || *mib > 1<<20 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if *warnings {
		os.Exit(showWarnings())
	}
	os.Exit(check(*mib, *rest, *command))
}

func showWarnings() int {
	found, err := kernelWarnings()
	if err != nil {
		fmt.Fprintln(os.Stderr, "memcheck:", err)
		return 1
	}
	for _, text := range found {
		fmt.Println(text)
	}
	return min(len(found), 1)
}

func check(mib int, rest time.Duration, command string) int {
	c := &console{
		warnings: kernelWarnings,
		machine:  restart,
		every:    make(chan time.Duration),
		out:      os.Stdout,
	}
	c.checker = newChecker(runtime.NumCPU(), mib, newClocks(), c.print)
	c.checker.rest = rest
	c.job = &job{command: command, run: runShell, report: c.checker.report, stop: &c.checker.stop}
	c.status()
	go c.tick(time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.checker.run()
	}()
	if command != "" {
		go c.job.repeat()
	}
	c.serve(os.Stdin)
	c.checker.stop.Store(true)
	<-done
	c.status()
	if c.checker.errors.Load() > 0 {
		return 1
	}
	return 0
}

// restart leaves file systems as they are: the guest has none on a disk.
func restart(command string) error {
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	if command == "reboot" {
		how = unix.LINUX_REBOOT_CMD_RESTART
	}
	if err := unix.Reboot(how); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}
