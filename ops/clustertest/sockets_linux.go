package clustertest

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// socket is one side of an established TCP connection.
type socket struct {
	local, remote netip.AddrPort
	inode         string
}

// sockets lists both sides of all established TCP connections over IPv4.
func sockets() ([]socket, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []socket
	in := bufio.NewScanner(f)
	in.Scan() // headings
	for in.Scan() {
		// number: local remote state queues timer retransmits uid timeout inode
		fields := strings.Fields(in.Text())
		const established = "01"
		if len(fields) < 10 || fields[3] != established {
			continue
		}
		local, err := parseAddr(fields[1])
		if err != nil {
			return nil, err
		}
		remote, err := parseAddr(fields[2])
		if err != nil {
			return nil, err
		}
		list = append(list, socket{local, remote, fields[9]})
	}
	return list, in.Err()
}

// parseAddr parses an address as the kernel lists it: 0100007F:1F90.
func parseAddr(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b) != 4 {
		return netip.AddrPort{}, fmt.Errorf("%q is not an address", s)
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var a [4]byte
	binary.NativeEndian.PutUint32(a[:], binary.BigEndian.Uint32(b))
	return netip.AddrPortFrom(netip.AddrFrom4(a), uint16(n)), nil
}

// holds reports whether a process has a socket open.
func holds(pid int, inode string) bool {
	if inode == "" {
		return false
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	open, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range open {
		if to, err := os.Readlink(dir + "/" + fd.Name()); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// socketOf returns the inode of the side of a connection at local, or an empty
// string if the connection has ended.
func socketOf(local, remote net.Addr) string {
	list, err := sockets()
	if err != nil {
		return ""
	}
	for _, s := range list {
		if s.local.String() == local.String() && s.remote.String() == remote.String() {
			return s.inode
		}
	}
	return ""
}
