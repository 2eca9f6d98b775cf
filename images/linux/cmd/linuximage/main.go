// Command linuximage writes the Linux guest of the tests (vmlinuz, vmlinux and
// initramfs.cpio) into a directory, for use as FINELINE_LINUX_DIR. Run it
// inside the module.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/fineline-vmm/fineline/images/linux"
)

func main() {
	out := flag.String("o", "", "directory to write to (default: linux-guest in the cache)")
	redis := flag.Bool("redis", false, "write initramfs-redis.cpio, too: a guest with redis-server and what tracks it")
	tools := flag.Bool("tools", false, "only make the host programs of the tests present, by apt-get when root")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, *redis, *tools); err != nil {
		fmt.Fprintln(os.Stderr, "linuximage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, redis, toolsOnly bool) error {
	if err := linux.EnsureTools(ctx); err != nil || toolsOnly {
		return err
	}
	if out == "" {
		cache, err := linux.CacheDir()
		if err != nil {
			return err
		}
		out = filepath.Join(cache, "linux-guest")
	}
	if err := linux.WriteGuest(ctx, out); err != nil {
		return err
	}
	if redis {
		if err := linux.WriteRedisGuest(ctx, out); err != nil {
			return err
		}
	}
	fmt.Println(out)
	return nil
}
