package api

import (
	"fmt"
	"path/filepath"
)

// checkTLS wants all three files of mutual TLS or none. They are the VMM's to read, which knows nothing
// of its client's working directory.
func (r MigrationRequest) checkTLS() error {
	given := 0
	for _, f := range []struct{ name, path string }{
		{"tls_cert", r.TLSCert}, {"tls_key", r.TLSKey}, {"tls_ca", r.TLSCA},
	} {
		if f.path == "" {
			continue
		}
		given++
		if err := checkPath(f.name, f.path); err != nil {
			return err
		}
		if !filepath.IsAbs(f.path) {
			return fmt.Errorf("%s is %q: give an absolute path", f.name, f.path)
		}
	}
	if given != 0 && given != 3 {
		return fmt.Errorf("tls_cert, tls_key and tls_ca go together: give all three, or none")
	}
	return nil
}
