// Command agent is /init of the emulated machine: it mounts, loads KVM, and
// runs the commands that come over the virtio-serial port (package channel).
//
// PID 1 does nothing but collect dead children and power off: the tests kill
// processes, whose orphans come to PID 1 and must not stay zombies, while the
// child that serves commands needs its own children's exit status for itself.
//
// Its own trouble goes to the console, which the host keeps as a log; before
// the port is open there is nobody else to tell.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// serveArg makes the child of PID 1 the one that serves.
const serveArg = "serve"

func main() {
	switch {
	case os.Getpid() == 1:
		runInit()
	case len(os.Args) == 2 && os.Args[1] == serveArg:
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "agent: this is /init of Fineline's emulated machine")
		os.Exit(2)
	}
}

// runInit prepares the machine, keeps a server until it ends, then powers off.
func runInit() {
	problems := prepare()
	cmd := exec.Command("/init", serveArg)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = []string{"PATH=/bin", "HOME=/root"}
	if problems != nil {
		fmt.Fprintln(os.Stderr, "agent:", problems)
		cmd.Env = append(cmd.Env, problemEnv+"="+problems.Error())
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "agent: start:", err)
	} else {
		reapUntil(cmd.Process.Pid)
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "agent: power off:", err)
	}
}

// reapUntil collects every child that ends, until pid has.
func reapUntil(pid int) {
	for {
		got, err := unix.Wait4(-1, nil, 0, nil)
		if got == pid || errors.Is(err, unix.ECHILD) {
			return
		}
	}
}
