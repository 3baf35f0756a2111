// Verifier checks an export of the ledger without any code of this project: signed notes, the tree and its proofs are
// golang.org/x/mod's (Debian: golang-golang-x-mod-dev), the rest is written from ledger/FORMAT.md.
//
//	verifier EXPORT HUB-VKEY WITNESS-VKEY [kept-checkpoint | receipt.tlog-proof]...
//
// The witness must have cosigned the checkpoint; - asks for none. It prints what it checked, or fails with what is wrong. tests/ledger/test_verifier.py builds and runs it.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func check(err error, what string, args ...interface{}) {
	if err != nil {
		fmt.Fprintf(os.Stderr, what+": %v\n", append(args, err)...)
		os.Exit(1)
	}
}

func must(holds bool, what string, args ...interface{}) {
	if !holds {
		check(fmt.Errorf("wrong"), what, args...)
	}
}

// cosigner is a note.Verifier for cosignature/v1 of C2SP tlog-cosignature.
type cosigner struct {
	name string
	key  []byte
}

func (c cosigner) Name() string { return c.name }
func (c cosigner) KeyHash() uint32 {
	h := sha256.Sum256(append([]byte(c.name+"\n\x04"), c.key...))
	return binary.BigEndian.Uint32(h[:])
}
func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.key, []byte(signed), sig[8:])
}

// export is a folder; x/mod's paths of tiles have their height in front, C2SP's have not.
type export string

func (dir export) file(path string) []byte {
	data, err := os.ReadFile(filepath.Join(string(dir), filepath.FromSlash(path)))
	check(err, "file %s", path)
	return data
}

// width is that of a tile with so many hashes to come.
func width(left int64) int {
	if left > 256 {
		return 256
	}
	return int(left)
}

// rows splits a bundle: each row behind its length in two bytes.
func (dir export) rows(folder string, start, size int64) [][]byte {
	tile := tlog.Tile{H: 8, L: 0, N: start / 256, W: width(size - start)}
	path := strings.Replace(tile.Path(), "tile/8/0/", folder, 1)
	data := dir.file(path)
	var rows [][]byte
	for len(data) >= 2 && len(data) >= 2+int(binary.BigEndian.Uint16(data)) {
		end := 2 + int(binary.BigEndian.Uint16(data))
		rows, data = append(rows, data[2:end]), data[end:]
	}
	must(len(data) == 0 && len(rows) == tile.W, "length of bundle %s", path)
	return rows
}

func open(raw []byte, hub note.Verifier, witness note.Verifier) (tlog.Tree, int) {
	known := []note.Verifier{hub}
	if witness != nil {
		known = append(known, witness)
	}
	opened, err := note.Open(raw, note.VerifierList(known...))
	check(err, "checkpoint")
	must(opened.Sigs[0].Name == hub.Name(), "signature of the hub")
	var tree tlog.Tree
	lines := strings.Split(opened.Text, "\n")
	must(len(lines) == 4 && lines[0] == hub.Name(), "origin of the checkpoint")
	_, err = fmt.Sscanf(lines[1], "%d", &tree.N)
	check(err, "size of the checkpoint")
	tree.Hash, err = tlog.ParseHash(lines[2])
	check(err, "root of the checkpoint")
	return tree, len(opened.Sigs)
}

func checkVote(index int64, text []byte) {
	const context = "cortex-node/vote/v1\x00"
	must(bytes.HasPrefix(text, []byte(context)), "context of vote %d", index)
	place := len(context) + 32
	for range "pf" { // project and fact, each behind its length in two bytes
		place += 2 + int(binary.BigEndian.Uint16(text[place:]))
	}
	end := len(text) - ed25519.SignatureSize
	must(end == place+32+32+8+1+32+8, "length of vote %d", index)
	must(ed25519.Verify(text[place+32:place+64], text[:end], text[end:]), "signature of vote %d", index)
}

func main() {
	dir := export(os.Args[1])
	hub, err := note.NewVerifier(os.Args[2])
	check(err, "key of the hub")
	var witness note.Verifier
	if parts := strings.SplitN(os.Args[3], "+", 3); os.Args[3] != "-" {
		key, err := base64.StdEncoding.DecodeString(parts[2])
		check(err, "key of the witness")
		witness = cosigner{parts[0], key[1:]}
	}
	tree, signatures := open(dir.file("checkpoint"), hub, witness)
	must(witness == nil || signatures == 2, "cosignature of the witness")

	// The tree is computed from the entries. x/mod's TileHashReader is not used: before version 0.40.0 it does not check
	// every tile that it reads (CVE-2026-56865), and Debian 12 has 0.7.0.
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for at, index := range indexes {
			found[at] = hashes[index]
		}
		return found, nil
	})
	prev, votes := make([]byte, 32), 0
	for start := int64(0); start < tree.N; start += 256 {
		texts := dir.rows("text/", start, tree.N)
		for at, entry := range dir.rows("tile/entries/", start, tree.N) {
			index := start + int64(at)
			stored, err := tlog.StoredHashes(index, entry, reader)
			check(err, "hashes of entry %d", index)
			hashes = append(hashes, stored...)
			must(len(entry) == 146 && bytes.Equal(entry[42:74], prev), "chain at entry %d", index)
			must(binary.BigEndian.Uint64(entry[18:]) == uint64(index), "number of entry %d", index)
			link := sha256.Sum256(append([]byte("cortex-chain/v1\x00"), entry...))
			prev = link[:]
			if index == 0 {
				must(strings.HasSuffix(hub.Name(), fmt.Sprintf("/%x", prev)), "ledger's id")
			}
			if name := sha256.Sum256(texts[at]); len(texts[at]) > 0 {
				must(bytes.Equal(name[:], entry[114:]), "text of entry %d", index)
			}
			if entry[16] == 5 && len(texts[at]) > 0 {
				checkVote(index, texts[at])
				votes++
			}
		}
	}
	root, err := tlog.TreeHash(tree.N, reader)
	check(err, "tree")
	must(root == tree.Hash, "root of the entries")
	for level, count := 0, tree.N; count > 0; level, count = level+1, count>>8 {
		for at := int64(0); at*256 < count; at++ {
			tile := tlog.Tile{H: 8, L: level, N: at, W: width(count - at*256)}
			data, err := tlog.ReadTileData(tile, reader)
			check(err, "tile")
			path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
			must(bytes.Equal(data, dir.file(path)), "tile %s", path)
		}
	}
	for _, path := range os.Args[4:] {
		raw, err := os.ReadFile(path)
		check(err, "file")
		if strings.HasSuffix(path, ".tlog-proof") {
			checkReceipt(raw, hub, witness)
			continue
		}
		kept, _ := open(raw, hub, witness)
		proof, err := tlog.ProveTree(tree.N, kept.N, reader)
		check(err, "history since size %d", kept.N)
		check(tlog.CheckTree(proof, tree.N, tree.Hash, kept.N, kept.Hash), "history since size %d", kept.N)
	}
	fmt.Printf("%d entries, %d votes, %d more files\n", tree.N, votes, len(os.Args)-4)
}

func checkReceipt(raw []byte, hub note.Verifier, witness note.Verifier) {
	upper, checkpoint, _ := strings.Cut(string(raw), "\n\n")
	lines := strings.Split(upper, "\n")
	must(len(lines) >= 3 && lines[0] == "c2sp.org/tlog-proof@v1", "receipt")
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	check(err, "entry in the receipt")
	var index int64
	_, err = fmt.Sscanf(lines[2], "index %d", &index)
	check(err, "index in the receipt")
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		check(err, "hash in the receipt")
		proof = append(proof, hash)
	}
	tree, _ := open([]byte(checkpoint), hub, witness)
	check(tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)), "receipt of entry %d", index)
}
