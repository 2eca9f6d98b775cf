package main

import (
	"fmt"
	"path/filepath"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// tlsFlags are the files of mutual TLS, as the user names them.
type tlsFlags migration.TLSFiles

func (f *tlsFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.Cert, "tls-cert", "", "TLS on a tcp: address: this side's certificate (PEM)")
	fl.StringVar(&f.Key, "tls-key", "", "the key of --tls-cert (PEM)")
	fl.StringVar(&f.CA, "tls-ca", "", "who signs the other side's certificate (PEM)")
}

// files checks the flags against the address and makes them absolute: another process may read them.
func (f tlsFlags) files(at migration.Address) (migration.TLSFiles, error) {
	files := migration.TLSFiles(f)
	if err := files.Check(at); err != nil {
		return files, fmt.Errorf("--tls-cert, --tls-key, --tls-ca: %w", err)
	}
	for _, path := range []*string{&files.Cert, &files.Key, &files.CA} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return files, err
		}
	}
	return files, nil
}

// requestedTLS is what a request says.
func requestedTLS(r api.MigrationRequest) migration.TLSFiles {
	return migration.TLSFiles{Cert: r.TLSCert, Key: r.TLSKey, CA: r.TLSCA}
}

// warnClearText tells who starts a migration what its VMM and its destination log as well.
func warnClearText(r api.MigrationRequest) {
	to, err := migration.ParseAddress(r.DestinationURL)
	if err == nil && to.Exposed() && r.TLSCert == "" {
		logrus.Warn(migration.ClearTextWarning(to))
	}
}
