package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CacheDir returns the directory for what is fetched and built once, made if
// needed: FINELINE_CACHE, or fineline in the user's cache directory.
func CacheDir() (string, error) {
	dir := os.Getenv("FINELINE_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache directory, set FINELINE_CACHE: %w", err)
		}
		dir = filepath.Join(user, "fineline")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("cache directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cache directory: %w", err)
	}
	return dir, nil
}

// publishDir returns dir, filled by fill if it does not exist yet. Callers in
// other processes wait; a fill that fails or is killed leaves no dir behind.
func publishDir(dir string, fill func(tmp string) error) error {
	if exists(dir) {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	unlock, err := lockFile(filepath.Join(parent, ".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if exists(dir) {
		return nil
	}
	// Under the lock every temporary directory belongs to a dead process.
	stale, err := filepath.Glob(filepath.Join(parent, ".tmp-*"))
	if err != nil {
		return err
	}
	for _, old := range stale {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(parent, ".tmp-")
	if err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// lockFile takes an exclusive lock, waiting for other processes. The kernel
// drops it when the holder dies, so there are no stale locks.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
