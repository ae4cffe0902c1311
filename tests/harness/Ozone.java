import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FsShell;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.hdds.conf.OzoneConfiguration;
import org.apache.hadoop.ozone.client.BucketArgs;
import org.apache.hadoop.ozone.client.ObjectStore;
import org.apache.hadoop.ozone.client.OzoneBucket;
import org.apache.hadoop.ozone.client.OzoneClient;
import org.apache.hadoop.ozone.client.OzoneClientFactory;
import org.apache.hadoop.ozone.client.OzoneKey;
import org.apache.hadoop.ozone.client.OzoneKeyDetails;
import org.apache.hadoop.ozone.client.OzoneSnapshot;
import org.apache.hadoop.ozone.om.helpers.BucketLayout;
import org.apache.hadoop.ozone.shell.OzoneShell;
import org.apache.hadoop.util.ToolRunner;

/**
 * A client of Ozone for the tests that shares nothing with snapferry: Ozone's own Java client, in one process for many
 * commands. `scripts/ozone batch DIR` runs it.
 *
 * It reads one command a line, as a JSON array of texts or, where no word holds a space, as plain words. After what a
 * command prints comes one line with `exit`, which is 0 where it succeeded, and `error` where it did not. BUCKET is
 * VOLUME/NAME. Data in a command is Base64.
 *
 *   bucket BUCKET fso|obs         makes a bucket
 *   link BUCKET BUCKET            makes the second bucket a link to the first
 *   put BUCKET KEY DATA [METADATA [TAGS]]   writes over what is there, as S3 does; both are JSON objects
 *   upload BUCKET KEY FILE        the same, from a file
 *   replace BUCKET KEY DATA       deletes what is there and creates it, through ofs:// where the layout allows it
 *   mkdir BUCKET KEY              with its parents
 *   rename BUCKET KEY KEY         a key, or a directory with all in it
 *   delete BUCKET KEY             a key, or a directory with all in it
 *   tag BUCKET KEY TAGS           replaces the tags
 *   fill BUCKET PREFIX COUNT BYTES SEED     that many keys of that size, eight at a time: PREFIX followed by the number
 *   content BUCKET [SNAPSHOT]     one JSON object for each key, in no order: key, kind (file or directory) and, for files,
 *                                 size, sha256 of what was read, mtime (ms), etag, metadata, tags, blocks
 *   snapshot BUCKET NAME          makes a snapshot
 *   drop BUCKET NAME              deletes a snapshot
 *   snapshots BUCKET              name, status and time (ms) of each
 *   fs ARGS... | sh ARGS...       Hadoop's file system shell and Ozone's own; what they say is in `out` and `err`
 */
@SuppressWarnings("deprecation")
public final class Ozone {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final PrintStream OUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);

  private final OzoneConfiguration configuration = new OzoneConfiguration();
  private final OzoneClient client;
  private final ObjectStore store;
  private final FileSystem files;
  private final ExecutorService pool = Executors.newFixedThreadPool(8, task -> {
    Thread thread = new Thread(task);
    thread.setDaemon(true);
    return thread;
  });
  private final Map<String, OzoneBucket> buckets = new HashMap<>();

  private Ozone() throws IOException {
    client = OzoneClientFactory.getRpcClient(configuration);
    store = client.getObjectStore();
    files = FileSystem.get(FileSystem.getDefaultUri(configuration), configuration);
  }

  public static void main(String[] arguments) throws IOException {
    Ozone ozone = new Ozone();
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    boolean failed = false;
    for (String line = commands.readLine(); line != null; line = commands.readLine()) {
      if (line.isBlank() || line.startsWith("#")) {
        continue;
      }
      ObjectNode answer = JSON.createObjectNode().put("exit", 0);
      try {
        String[] words = line.startsWith("[") ? JSON.readValue(line, String[].class) : line.trim().split("\\s+");
        ozone.run(words, answer);
      } catch (Exception error) {
        answer.put("exit", 1).put("error", error.toString());
      }
      failed |= answer.get("exit").asInt() != 0;
      OUT.println(answer);
      OUT.flush();
    }
    // Clients leave threads behind.
    System.exit(failed ? 1 : 0);
  }

  private void run(String[] words, ObjectNode answer) throws Exception {
    String command = words[0];
    if (command.equals("fs") || command.equals("sh")) {
      shell(words, answer);
      return;
    }
    String name = words[1];
    String key = words.length > 2 ? words[2] : null;
    switch (command) {
      case "bucket" -> create(name, BucketArgs.newBuilder()
          .setBucketLayout(key.equals("fso") ? BucketLayout.FILE_SYSTEM_OPTIMIZED : BucketLayout.OBJECT_STORE));
      case "link" -> {
        String[] source = name.split("/");
        create(key, BucketArgs.newBuilder().setSourceVolume(source[0]).setSourceBucket(source[1]));
      }
      case "put" -> {
        byte[] data = data(words);
        try (OutputStream to = bucket(name).createKey(key, data.length, bucket(name).getReplicationConfig(),
            map(words, 4), map(words, 5))) {
          to.write(data);
        }
      }
      case "upload" -> {
        java.io.File file = new java.io.File(words[3]);
        try (InputStream from = new FileInputStream(file);
            OutputStream to = bucket(name).createKey(key, file.length())) {
          from.transferTo(to);
        }
      }
      case "replace" -> replace(name, key, data(words));
      case "mkdir" -> bucket(name).createDirectory(key);
      case "rename" -> rename(name, key, words[3]);
      case "delete" -> delete(name, key);
      case "tag" -> bucket(name).putObjectTagging(key, map(words, 3));
      case "fill" -> fill(bucket(name), key, Integer.parseInt(words[3]), Integer.parseInt(words[4]),
          Long.parseLong(words[5]));
      case "content" -> content(name, key == null ? "" : ".snapshot/" + key + "/");
      case "snapshot" -> store.createSnapshot(volume(name), base(name), key);
      case "drop" -> store.deleteSnapshot(volume(name), base(name), key);
      case "snapshots" -> {
        Iterator<OzoneSnapshot> all = store.listSnapshot(volume(name), base(name), "", null);
        while (all.hasNext()) {
          OzoneSnapshot one = all.next();
          OUT.println(JSON.createObjectNode().put("name", one.getName())
              .put("status", one.getSnapshotStatus().toString()).put("created", one.getCreationTime()));
        }
      }
      default -> throw new IllegalArgumentException("no command " + command);
    }
  }

  private static String volume(String bucket) {
    return bucket.substring(0, bucket.indexOf('/'));
  }

  private static String base(String bucket) {
    return bucket.substring(bucket.indexOf('/') + 1);
  }

  private OzoneBucket bucket(String name) throws IOException {
    OzoneBucket bucket = buckets.get(name);
    if (bucket == null) {
      bucket = store.getVolume(volume(name)).getBucket(base(name));
      buckets.put(name, bucket);
    }
    return bucket;
  }

  private void create(String name, BucketArgs.Builder how) throws IOException {
    store.getVolume(volume(name)).createBucket(base(name), how.build());
  }

  private boolean hasDirectories(String name) throws IOException {
    return bucket(name).getBucketLayout() != BucketLayout.OBJECT_STORE;
  }

  private Path path(String bucket, String key) {
    return new Path(files.getScheme(), files.getUri().getAuthority(), "/" + bucket + "/" + key);
  }

  private static byte[] data(String[] words) {
    return Base64.getDecoder().decode(words.length > 3 ? words[3] : "");
  }

  private static Map<String, String> map(String[] words, int index) throws IOException {
    Map<String, String> map = new HashMap<>();
    if (words.length > index) {
      Iterator<Map.Entry<String, JsonNode>> fields = JSON.readTree(words[index]).fields();
      fields.forEachRemaining(field -> map.put(field.getKey(), field.getValue().asText()));
    }
    return map;
  }

  private void replace(String name, String key, byte[] data) throws IOException {
    delete(name, key);
    if (hasDirectories(name)) {
      try (OutputStream to = files.create(path(name, key), false)) {
        to.write(data);
      }
    } else {
      try (OutputStream to = bucket(name).createKey(key, data.length)) {
        to.write(data);
      }
    }
  }

  private void rename(String name, String from, String to) throws IOException {
    if (!hasDirectories(name)) {
      bucket(name).renameKey(from, to);
    } else if (files.exists(path(name, to)) || !files.rename(path(name, from), path(name, to))) {
      throw new IOException("cannot rename " + from + " to " + to + ": the first is not there, or the second is");
    }
  }

  private void delete(String name, String key) throws IOException {
    if (!hasDirectories(name)) {
      bucket(name).deleteKey(key);
    } else if (!files.delete(path(name, key), true)) {
      throw new IOException("cannot delete " + key + ": not there");
    }
  }

  private void fill(OzoneBucket bucket, String prefix, int count, int bytes, long seed) throws Exception {
    List<Future<?>> writes = new ArrayList<>();
    for (int number = 0; number < count; number++) {
      int mine = number;
      writes.add(pool.submit(() -> {
        byte[] data = new byte[bytes];
        new java.util.SplittableRandom(seed + mine).nextBytes(data);
        try (OutputStream to = bucket.createKey(prefix + mine, bytes)) {
          to.write(data);
        }
        return null;
      }));
    }
    for (Future<?> write : writes) {
      write.get();
    }
  }

  /** Prints everything under this prefix of names, which is not part of the keys. */
  private void content(String name, String prefix) throws Exception {
    OzoneBucket bucket = bucket(name);
    List<Future<ObjectNode>> entries = new ArrayList<>();
    if (hasDirectories(name)) {
      walk(bucket, path(name, prefix), prefix, prefix, entries);
    } else {
      Iterator<? extends OzoneKey> keys = bucket.listKeys(prefix);
      while (keys.hasNext()) {
        String key = keys.next().getName();
        entries.add(pool.submit(() -> file(bucket, key, prefix)));
      }
    }
    for (Future<ObjectNode> entry : entries) {
      OUT.println(entry.get());
    }
  }

  private void walk(OzoneBucket bucket, Path directory, String name, String prefix, List<Future<ObjectNode>> entries)
      throws IOException {
    for (FileStatus status : files.listStatus(directory)) {
      String key = name + status.getPath().getName();
      if (status.isDirectory()) {
        ObjectNode entry = JSON.createObjectNode().put("key", key.substring(prefix.length()) + "/");
        entries.add(pool.submit(() -> entry.put("kind", "directory")));
        walk(bucket, status.getPath(), key + "/", prefix, entries);
      } else {
        entries.add(pool.submit(() -> file(bucket, key, prefix)));
      }
    }
  }

  private static ObjectNode file(OzoneBucket bucket, String key, String prefix) throws Exception {
    OzoneKeyDetails details = bucket.getKey(key);
    MessageDigest digest = MessageDigest.getInstance("SHA-256");
    long size = 0;
    try (InputStream from = details.getContent()) {
      byte[] buffer = new byte[1 << 16];
      for (int read = from.read(buffer); read >= 0; read = from.read(buffer)) {
        digest.update(buffer, 0, read);
        size += read;
      }
    }
    if (size != details.getDataSize()) {
      throw new IOException(key + ": listed with " + details.getDataSize() + " bytes, read " + size);
    }
    Map<String, String> metadata = new HashMap<>(details.getMetadata());
    ObjectNode entry = JSON.createObjectNode().put("key", key.substring(prefix.length())).put("kind", "file")
        .put("size", size).put("sha256", String.format("%064x", new java.math.BigInteger(1, digest.digest())))
        .put("mtime", details.getModificationTime().toEpochMilli()).put("etag", metadata.remove("ETag"))
        .put("blocks", details.getOzoneKeyLocations().size());
    entry.set("metadata", JSON.valueToTree(metadata));
    entry.set("tags", JSON.valueToTree(details.getTags() == null ? Collections.emptyMap() : details.getTags()));
    return entry;
  }

  private void shell(String[] words, ObjectNode answer) throws Exception {
    String[] arguments = java.util.Arrays.copyOfRange(words, 1, words.length);
    PrintStream out = System.out;
    PrintStream err = System.err;
    ByteArrayOutputStream said = new ByteArrayOutputStream();
    ByteArrayOutputStream complained = new ByteArrayOutputStream();
    try (PrintStream toOut = new PrintStream(said, true, StandardCharsets.UTF_8);
        PrintStream toErr = new PrintStream(complained, true, StandardCharsets.UTF_8)) {
      System.setOut(toOut);
      System.setErr(toErr);
      int exit = words[0].equals("fs")
          ? ToolRunner.run(new OzoneConfiguration(configuration), new FsShell(), arguments)
          : new OzoneShell().execute(arguments);
      answer.put("exit", exit);
    } finally {
      System.setOut(out);
      System.setErr(err);
    }
    answer.put("out", said.toString(StandardCharsets.UTF_8)).put("err", complained.toString(StandardCharsets.UTF_8));
  }
}
