package embedded

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
)

// Role says what a member may do with the log.
type Role string

// The roles.
const (
	RoleLedger   Role = "ledger"
	RoleVerifier Role = "verifier"
)

// Member is a node that may connect. None of its fields is secret.
type Member struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Key is the public half of its key.
	Key string `json:"key"`
	// Hosts are the names and addresses by which others reach it. A verifier has
	// none, because nobody connects to it.
	Hosts []string `json:"hosts,omitempty"`
	// Certificate is the SHA-256 of its certificate's public key, in hexadecimal.
	// The servers of a cluster accept only those of ledgers from other servers.
	Certificate string `json:"certificate"`
}

// Members are all nodes that may connect.
type Members []Member

// Named returns the member with a name.
func (ms Members) Named(name string) (Member, bool) {
	return ms.find(func(m Member) bool { return m.Name == name })
}

func (ms Members) find(is func(Member) bool) (Member, bool) {
	if i := slices.IndexFunc(ms, is); i >= 0 {
		return ms[i], true
	}
	return Member{}, false
}

// Ledgers returns the names of the ledgers, sorted.
func (ms Members) Ledgers() []string {
	var names []string
	for _, m := range ms {
		if m.Role == RoleLedger {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (ms Members) users() []user {
	var users []user
	for _, m := range ms {
		switch m.Role {
		case RoleLedger:
			users = append(users, ledgerUser(m.Key, m.Name))
		case RoleVerifier:
			users = append(users, verifierUser(m.Key, m.Name))
		}
	}
	return users
}

// pins returns the certificates that servers may have.
func (ms Members) pins() map[string]struct{} {
	pins := make(map[string]struct{})
	for _, m := range ms {
		if m.Role == RoleLedger {
			pins[m.Certificate] = struct{}{}
		}
	}
	return pins
}

func (ms Members) validate() error {
	var problems []error
	names, keys := map[string]bool{}, map[string]bool{}
	for _, m := range ms {
		bad := func(format string, args ...any) {
			problems = append(
				problems,
				fmt.Errorf("member %s: "+format, append([]any{events.Quote(m.Name)}, args...)...),
			)
		}
		if err := events.CheckNodeName(m.Name); err != nil {
			bad("%w", err)
		}
		if m.Role != RoleLedger && m.Role != RoleVerifier {
			bad("its role is neither %s nor %s", RoleLedger, RoleVerifier)
		}
		// A seed given by mistake must not reach an error text.
		if !nkeys.IsValidPublicUserKey(m.Key) {
			bad("its key is not the public half of a user key")
		}
		if raw, err := hex.DecodeString(m.Certificate); err != nil || len(raw) != sha256.Size {
			bad("its certificate is not a SHA-256 in hexadecimal")
		}
		if names[m.Name] || keys[m.Key] {
			bad("another member has the same name or key")
		}
		names[m.Name], keys[m.Key] = true, true
	}
	return errors.Join(problems...)
}

// Names in a folder of credentials.
const (
	fileCA      = "ca.crt"
	fileCAKey   = "ca.key"
	fileMembers = "members.json"
	fileKey     = "node.nk"
	fileCert    = "tls.crt"
	fileCertKey = "tls.key"
	fileConf    = "nats.conf"
	dirNodes    = "nodes"
)

type membersFile struct {
	Members Members `json:"members"`
}

// LoadMembers reads the file of members at path.
func LoadMembers(path string) (Members, error) {
	ms, err := loadMembers(path)
	if err != nil {
		return nil, fmt.Errorf("members file %s: %w", path, err)
	}
	return ms, nil
}

func loadMembers(path string) (Members, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf(
			"other users can write it (mode %04o), and it decides who may connect: check its content, then set mode 0600",
			mode,
		)
	}
	var file membersFile
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, errors.New("it was not written by nats init: restore it, or run nats init")
	}
	if len(file.Members) == 0 {
		return nil, errors.New("it has no members: restore it, or run nats init")
	}
	return file.Members, file.Members.validate()
}

// Credentials are the key and certificate of one node, with the list of members. Like
// the key they are never printed.
type Credentials struct {
	Member
	Key     Key
	Members Members
	// Dir is the folder of the files.
	Dir string

	cert tls.Certificate
	ca   *x509.CertPool
}

// LoadCredentials reads the folder of one node that [Issue] wrote.
func LoadCredentials(dir string, rule ...disk.SecretRule) (*Credentials, error) {
	c, err := loadCredentials(dir, ruleOf(rule))
	if err != nil {
		return nil, fmt.Errorf("credentials in %s: %w", dir, err)
	}
	return c, nil
}

func loadCredentials(dir string, rule disk.SecretRule) (*Credentials, error) {
	c := &Credentials{Dir: dir}
	var err error
	if c.Key, err = LoadKey(filepath.Join(dir, fileKey), rule); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: use this node's folder under nodes, which tokenledger nats init wrote", err)
		}
		return nil, err
	}
	if c.Members, err = LoadMembers(c.membersPath()); err != nil {
		return nil, err
	}
	var ok bool
	if c.Member, ok = c.Members.find(func(m Member) bool { return m.Key == c.Key.Public() }); !ok {
		return nil, fmt.Errorf(
			"%s does not name the node whose key is in %s: copy both from the same run of nats init",
			fileMembers,
			fileKey,
		)
	}
	if err := closedToOthers(filepath.Join(dir, fileCertKey), rule); err != nil {
		return nil, err
	}
	if c.cert, err = tls.LoadX509KeyPair(filepath.Join(dir, fileCert), filepath.Join(dir, fileCertKey)); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, fileCA))
	if err != nil {
		return nil, err
	}
	c.ca = x509.NewCertPool()
	if !c.ca.AppendCertsFromPEM(bytes.TrimSpace(pem)) {
		return nil, fmt.Errorf("%s holds no certificate", fileCA)
	}
	client := x509.VerifyOptions{Roots: c.ca, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := c.cert.Leaf.Verify(client); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if fingerprint(c.cert.Leaf) != c.Certificate {
		return nil, fmt.Errorf(
			"%s is not the certificate that %s names for %s: copy both from the same run of nats init",
			fileCert,
			fileMembers,
			c.Name,
		)
	}
	return c, nil
}

// closedToOthers returns an error if the rule does not accept a file with a secret.
func closedToOthers(path string, rule disk.SecretRule) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := rule.Check(path, info); err != nil {
		return fmt.Errorf("%s: %w: create new credentials if somebody may have read it, then set mode 0600", path, err)
	}
	return nil
}

// ReadMembers reads the list of members again.
func (c *Credentials) ReadMembers() (Members, error) { return LoadMembers(c.membersPath()) }

func (c *Credentials) membersPath() string { return filepath.Join(c.Dir, fileMembers) }

// fingerprint is the SHA-256 of a certificate's public key, as the server
// compares it.
func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Credentials are passed by pointer. So fmt does not print the certificate's key even
// where it does not call these methods.

func (c *Credentials) Format(s fmt.State, _ rune)   { io.WriteString(s, "[credentials]") }
func (c *Credentials) LogValue() slog.Value         { return slog.StringValue("[credentials]") }
func (c *Credentials) MarshalText() ([]byte, error) { return []byte("[credentials]"), nil }

// clientTLS is for a connection to a server. The server must present a certificate for
// its host.
func (c *Credentials) clientTLS() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		RootCAs:      c.ca,
		Certificates: []tls.Certificate{c.cert},
	}
}

// serverTLS is for a listener, and for connections between the servers of a cluster. Both
// sides present a certificate.
func (c *Credentials) serverTLS() *tls.Config {
	t := c.clientTLS()
	t.ClientAuth = tls.RequireAndVerifyClientCert
	t.ClientCAs = c.ca
	return t
}

// Options returns the options of this member's connection, over TLS.
func (c *Credentials) Options() []nats.Option {
	inbox := ledgerInbox
	if c.Role == RoleVerifier {
		inbox = inboxOf(c.Name)
	}
	return append(clientOptions(c.Key, "tokenledger "+string(c.Role)+" "+c.Name, inbox), nats.Secure(c.clientTLS()))
}
