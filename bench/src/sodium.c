/* libsodium's Argon2id in a bare loop, as `pearlgate::passwords::bare_rate` runs ours: what the raw rate is compared
 * with. A program of its own, because the workspace forbids unsafe code.
 *
 * Usage: sodium MEMORY_KIB PASSES THREADS MILLISECONDS
 * Prints its hashes per second, libsodium's version, and a hash that it made, as a PHC string. */
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char password[] = "correct horse battery staple";
static size_t memory;
static unsigned long long passes;
static double seconds, started;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *work(void *done) {
    unsigned char out[32], salt[crypto_pwhash_SALTBYTES];
    memset(salt, 7, sizeof salt);
    while (now() - started < seconds) {
        if (crypto_pwhash(out, sizeof out, password, strlen(password), salt, passes, memory,
                          crypto_pwhash_ALG_ARGON2ID13) != 0)
            exit(1);
        ++*(long *)done;
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[64];
    long done[64] = {0}, sum = 0;
    char text[crypto_pwhash_STRBYTES];
    if (argc != 5 || sodium_init() < 0) return 1;
    memory = strtoull(argv[1], NULL, 10) * 1024;
    passes = strtoull(argv[2], NULL, 10);
    int count = atoi(argv[3]);
    seconds = atof(argv[4]) / 1e3;
    if (count < 1 || count > 64) return 1;
    if (crypto_pwhash_str_alg(text, password, strlen(password), passes, memory, crypto_pwhash_ALG_ARGON2ID13) != 0)
        return 1;
    started = now();
    for (int n = 0; n < count; ++n)
        if (pthread_create(&threads[n], NULL, work, &done[n]) != 0) return 1;
    for (int n = 0; n < count; ++n) {
        pthread_join(threads[n], NULL);
        sum += done[n];
    }
    printf("%f %s %s\n", (double)sum / (now() - started), sodium_version_string(), text);
    return 0;
}
