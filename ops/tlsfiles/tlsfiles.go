// Package tlsfiles keeps the certificate of a node's listeners.
//
// # Promise
//
// A certificate and its key are checked as a pair before they are used: both come
// from files, or a self-signed pair from the data folder. New files replace the
// pair while the node runs. Files that cannot be used change nothing.
package tlsfiles

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/tokenledger/tokenledger/events/clock"
)

// Config names the certificate. The zero Config means none: no TLS.
type Config struct {
	CertFile, KeyFile string // PEM; the certificate first, then its intermediates
	SelfSigned        bool
}

// On reports whether there is a certificate.
func (c Config) On() bool { return c.SelfSigned || c.CertFile != "" }

// Validate returns what is wrong with a Config.
func (c Config) Validate() error {
	switch {
	case c.SelfSigned && (c.CertFile != "" || c.KeyFile != ""):
		return errors.New("tls-self-signed: with --tls-cert the certificate is from that file; leave out one of the two")
	case c.CertFile != "" && c.KeyFile == "":
		return errors.New("tls-key: name the file of the certificate's key")
	case c.KeyFile != "" && c.CertFile == "":
		return errors.New("tls-cert: name the file of the certificate for the key in --tls-key")
	}
	return nil
}

// A Source is a certificate that can be replaced.
type Source struct {
	log *slog.Logger

	mu      sync.RWMutex
	cfg     Config // guarded by mu; with the names of the files
	now     *pair  // guarded by mu
	failing bool   // guarded by mu; the files hold something that cannot be used
}

// pair is a certificate with its key.
type pair struct {
	cert  *tls.Certificate
	stamp string // of the files
}

// Open reads the certificate. A self-signed one is created in the folder of the
// node, for the hosts, if there is none yet.
func Open(cfg Config, selfSigned SelfSigned, log *slog.Logger) (*Source, error) {
	if cfg.SelfSigned {
		if err := selfSigned.create(); err != nil {
			return nil, fmt.Errorf("self-signed certificate: %w", err)
		}
		cfg.CertFile, cfg.KeyFile = selfSigned.CertFile, selfSigned.KeyFile
	}
	p, err := load(cfg)
	if err != nil {
		return nil, err
	}
	return &Source{log: log, cfg: cfg, now: p}, nil
}

// load reads a pair from its files.
func load(cfg Config) (*pair, error) {
	// The stamp is from before: if the files change meanwhile, they are read again.
	stamp := stampOf(cfg)
	cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", cfg.CertFile, cfg.KeyFile, err)
	}
	if now := time.Now(); now.After(cert.Leaf.NotAfter) {
		at := cert.Leaf.NotAfter.UTC().Format(time.RFC3339)
		return nil, fmt.Errorf("certificate %s expired at %s", cfg.CertFile, at)
	}
	return &pair{cert: &cert, stamp: stamp}, nil
}

// stampOf changes when the files do.
func stampOf(cfg Config) string {
	stamp := ""
	for _, name := range []string{cfg.CertFile, cfg.KeyFile} {
		if info, err := os.Stat(name); err == nil {
			stamp += fmt.Sprintf("%d %d;", info.ModTime().UnixNano(), info.Size())
		} else {
			stamp += "gone;"
		}
	}
	return stamp
}

// Prepare reads the files that a configuration names, and returns what puts them
// into force. The files of a self-signed certificate stay the same.
func (s *Source) Prepare(cfg Config) (commit func(), err error) {
	s.mu.RLock()
	if cfg.SelfSigned {
		cfg = s.cfg
	}
	s.mu.RUnlock()
	p, err := load(cfg)
	if err != nil {
		return nil, err
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cfg, s.now, s.failing = cfg, p, false
	}, nil
}

// watchEvery is how often the files are looked at.
const watchEvery = 2 * time.Second

// Watch replaces the certificate when its files change, until ctx ends. A
// certificate and its key can be replaced one after the other: until they fit, the
// old pair stays.
func (s *Source) Watch(ctx context.Context) error {
	for clock.Sleep(ctx, watchEvery) {
		s.check()
	}
	return nil
}

func (s *Source) check() {
	s.mu.RLock()
	cfg, was, failing := s.cfg, s.now, s.failing
	s.mu.RUnlock()
	if stampOf(cfg) == was.stamp && !failing {
		return
	}
	p, err := load(cfg)
	s.mu.Lock()
	s.failing = err != nil
	if err == nil && s.cfg == cfg {
		s.now = p
	}
	s.mu.Unlock()
	if err != nil {
		s.log.Error("certificate was not replaced; the old one stays in use", "err", err)
		return
	}
	if Fingerprint(p.cert.Certificate[0]) != Fingerprint(was.cert.Certificate[0]) {
		at := s.Expires().UTC().Format(time.RFC3339)
		s.log.Info("certificate replaced", "fingerprint", s.Fingerprint(), "expires", at)
	}
}

func (s *Source) pair() *pair {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.now
}

// TLS returns the configuration of a server with the certificate. It speaks
// HTTP/1.1 only, as without TLS.
func (s *Source) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.pair().cert, nil
		},
	}
}

// Fingerprint returns the fingerprint of the certificate in use.
func (s *Source) Fingerprint() string { return Fingerprint(s.pair().cert.Certificate[0]) }

// Expires returns when the certificate in use expires.
func (s *Source) Expires() time.Time { return s.pair().cert.Leaf.NotAfter }

// Failing reports whether the files hold something that cannot be used.
func (s *Source) Failing() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.failing
}

// Fingerprint returns what people compare certificates by: "sha256:" and the
// digest of the certificate in hexadecimal digits.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}
