package embedded

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
)

var (
	// ErrIssued reports a name that has other credentials already.
	ErrIssued = errors.New("has credentials already")
	// ErrRequest reports a name, role or host that cannot be one.
	ErrRequest = errors.New("cannot be given credentials")
)

// validity is the lifetime of certificates and of the authority. Shorter lifetimes
// would end unnoticed and stop the cluster. A leaked key is revoked by removing its
// member from the list.
const validity = 10 * 365 * 24 * time.Hour

// Request asks for the credentials of one node.
type Request struct {
	Name  string
	Role  Role
	Hosts []string // names and addresses by which others reach it; required for a ledger
}

func (r Request) validate() error {
	var problems []error
	if err := events.CheckNodeName(r.Name); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s %w: "+format, append([]any{r.Name, ErrRequest}, args...)...))
	}
	switch {
	case r.Role == RoleLedger && len(r.Hosts) == 0:
		bad("a ledger needs the hosts by which others reach it")
	case r.Role == RoleVerifier && len(r.Hosts) > 0:
		bad("nobody connects to a verifier: leave its hosts out")
	case r.Role != RoleLedger && r.Role != RoleVerifier:
		bad("its role is neither %s nor %s", RoleLedger, RoleVerifier)
	}
	for _, h := range r.Hosts {
		if net.ParseIP(h) == nil && !isHostname(h) {
			bad("%s is neither a host name nor an address; leave ports out", events.Quote(h))
		}
	}
	return errors.Join(problems...)
}

func isHostname(h string) bool {
	if len(h) == 0 || len(h) > 253 {
		return false
	}
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return true
}

// Issue creates credentials for the requested nodes in the folder dir:
//
//	ca.crt, ca.key       the authority of all certificates
//	members.json         the nodes that may connect
//	nats.conf            the configuration of external servers
//	nodes/<name>/        the files of one node: node.nk, tls.crt, tls.key, ca.crt and members.json
//
// If dir has credentials already, Issue adds to them: it keeps all keys and
// certificates, and updates members.json and nats.conf. A node that exists as requested
// is kept, so repeating a call changes nothing. It returns all members, new ones last.
// If one request is refused, nothing is written. ErrIssued reports a name that exists
// with another role or other hosts.
func Issue(dir string, requests []Request) (Members, error) {
	ms, err := issue(dir, requests)
	if err != nil {
		return nil, fmt.Errorf("create credentials: %w", err)
	}
	return ms, nil
}

func issue(dir string, requests []Request) (Members, error) {
	p, err := planIssue(dir, requests)
	if err != nil {
		return nil, err
	}
	return p.apply(dir)
}

// issuePlan lists the changes that [Issue] makes in a folder.
type issuePlan struct {
	members Members   // those that exist; nil if the folder has no authority yet
	missing []Request // nodes to create credentials for
}

// planIssue reads the folder and checks the requests. It writes nothing.
func planIssue(dir string, requests []Request) (issuePlan, error) {
	if len(requests) == 0 {
		return issuePlan{}, errors.New("name at least one node")
	}
	members, err := loadIssued(dir)
	if err != nil {
		return issuePlan{}, err
	}
	p := issuePlan{members: members}
	var problems []error
	taken := map[string]bool{}
	for _, m := range members {
		taken[strings.ToLower(m.Name)] = true
	}
	for _, r := range requests {
		if err := r.validate(); err != nil {
			problems = append(problems, err)
			continue
		}
		if m, ok := members.Named(r.Name); ok && m.Role == r.Role && slices.Equal(m.Hosts, r.Hosts) {
			continue
		}
		p.missing = append(p.missing, r)
		// Names that differ only by case share a folder on some systems.
		if taken[strings.ToLower(r.Name)] {
			problems = append(
				problems,
				fmt.Errorf("%s %w: to replace them, remove the name from %s and delete its folder",
					r.Name, ErrIssued, fileMembers),
			)
		} else if _, err := os.Lstat(nodeDir(dir, r.Name)); err == nil {
			problems = append(problems, fmt.Errorf("%s exists, but %s does not name the node: remove the folder first",
				nodeDir(dir, r.Name), fileMembers))
		}
		taken[strings.ToLower(r.Name)] = true
	}
	return p, errors.Join(problems...)
}

// loadIssued returns the members in a folder, nil if it has no credentials.
func loadIssued(dir string) (Members, error) {
	members, err := LoadMembers(filepath.Join(dir, fileMembers))
	if !errors.Is(err, fs.ErrNotExist) {
		return members, err
	}
	// Without the list, the files are of an interrupted run or of another program.
	for _, name := range []string{fileCA, fileCAKey, dirNodes, fileConf} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return nil, fmt.Errorf("%s has %s but no %s: nothing was overwritten: "+
				"name another folder, or remove what an interrupted run left", dir, name, fileMembers)
		}
	}
	return nil, nil
}

// apply writes the credentials, and returns all members.
func (p issuePlan) apply(dir string) (Members, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := CheckFolder(dir); err != nil {
		return nil, err
	}
	var ca *authority
	var err error
	switch {
	case p.members == nil:
		ca, err = newAuthority(dir)
	case len(p.missing) > 0:
		ca, err = loadAuthority(dir)
	}
	if err != nil {
		return nil, err
	}
	members := p.members
	for _, r := range p.missing {
		m, err := ca.issue(dir, r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
		members = append(members, m)
	}
	return members, writeMembers(dir, members)
}

// writeMembers writes the list of members and what follows from it. The list itself
// comes last: a node that it names has all of its files.
func writeMembers(dir string, members Members) error {
	list, err := json.MarshalIndent(membersFile{members}, "", "  ")
	if err != nil {
		return err
	}
	list = append(list, '\n')
	for _, m := range members {
		if err := replaceChanged(filepath.Join(nodeDir(dir, m.Name), fileMembers), list); err != nil {
			return err
		}
	}
	if err := replaceChanged(filepath.Join(dir, fileConf), []byte(ServerConfig(members))); err != nil {
		return err
	}
	return replaceChanged(filepath.Join(dir, fileMembers), list)
}

func nodeDir(dir, name string) string { return filepath.Join(dir, dirNodes, name) }

// authority signs the certificates.
type authority struct {
	cert *x509.Certificate
	pem  []byte
	key  *ecdsa.PrivateKey
}

func newAuthority(dir string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "tokenledger"},
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	a := &authority{key: key}
	if a.cert, a.pem, err = sign(template, nil, &key.PublicKey, key); err != nil {
		return nil, err
	}
	private, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	if err := disk.Create(filepath.Join(dir, fileCAKey), private); err != nil {
		return nil, err
	}
	return a, disk.Create(filepath.Join(dir, fileCA), a.pem)
}

func loadAuthority(dir string) (*authority, error) {
	path := filepath.Join(dir, fileCAKey)
	if err := closedToOthers(path, disk.SecretRule{}); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: nodes can be added only where the authority's key is kept: copy it there", err)
		}
		return nil, err
	}
	private, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	a := &authority{}
	if a.pem, err = os.ReadFile(filepath.Join(dir, fileCA)); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(a.pem)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", fileCA)
	}
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("%s: %w", fileCA, err)
	}
	malformed := fmt.Errorf("%s is not the key of %s: restore the right one", fileCAKey, fileCA)
	if block, _ = pem.Decode(private); block == nil {
		return nil, malformed
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, malformed
	}
	var ok bool
	if a.key, ok = parsed.(*ecdsa.PrivateKey); !ok || !a.key.PublicKey.Equal(a.cert.PublicKey) {
		return nil, malformed
	}
	return a, nil
}

// issue writes the folder of one node.
func (a *authority) issue(dir string, r Request) (Member, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Member{}, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: r.Name, OrganizationalUnit: []string{string(r.Role)}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if r.Role == RoleLedger {
		// A verifier's certificate is not valid for a server.
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	hosts := r.Hosts
	if slices.ContainsFunc(hosts, func(h string) bool { return h == "localhost" || h == "127.0.0.1" }) {
		hosts = append(slices.Clone(hosts), "localhost", "127.0.0.1", "::1") // these all name this machine
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	cert, certPEM, err := sign(template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return Member{}, err
	}
	private, err := keyPEM(key)
	if err != nil {
		return Member{}, err
	}
	node := nodeDir(dir, r.Name)
	if err := os.MkdirAll(node, 0o700); err != nil {
		return Member{}, err
	}
	nkey, err := LoadOrCreateKey(filepath.Join(node, fileKey))
	if err != nil {
		return Member{}, err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{fileCertKey, private}, {fileCert, certPEM}, {fileCA, a.pem}} {
		if err := disk.Create(filepath.Join(node, f.name), f.data); err != nil {
			return Member{}, err
		}
	}
	return Member{Name: r.Name, Role: r.Role, Key: nkey.Public(), Hosts: r.Hosts, Certificate: fingerprint(cert)}, nil
}

// sign creates a certificate. It is self-signed if parent is nil.
func sign(
	template, parent *x509.Certificate,
	public *ecdsa.PublicKey,
	by *ecdsa.PrivateKey,
) (*x509.Certificate, []byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = serial
	// This allows clocks that are up to an hour behind this machine's.
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.Add(validity)
	if parent == nil {
		parent = template
	} else if template.NotAfter.After(parent.NotAfter) {
		template.NotAfter = parent.NotAfter
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), err
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
}

// replaceChanged writes a file unless it already has this content.
func replaceChanged(path string, data []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	return disk.Replace(path, data)
}
